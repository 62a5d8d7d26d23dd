#!/usr/bin/env bash
# Makes the film of the first lesson: make-video.sh [FILE.webm], by default media/intro.webm beside this script.
# Does nothing when the file is there. Needs ffmpeg with VP9 (Debian: apt-get install ffmpeg).
set -euo pipefail

out=${1:-$(dirname "${BASH_SOURCE[0]}")/media/intro.webm}
if [ -s "$out" ]; then
    exit 0
fi
if ! command -v ffmpeg >/dev/null; then
    echo "make-video.sh: ffmpeg is missing; on Debian: apt-get install ffmpeg" >&2
    exit 1
fi
mkdir -p "$(dirname "$out")"
unfinished=$(mktemp "$out.XXXXXX.webm")
trap 'rm -f "$unfinished"' EXIT

# A reader on the left, the edge in the middle, the server on the right. The first dot takes five seconds to the server
# and back and leaves a copy at the edge; the dots after it turn round there. Positions are functions of the time t.
reader=150 edge=560 server=1090
first="if(lt(t,3), $reader+($server-$reader)*t/3, $server-($server-$reader)*(t-3)/3)"
later() { # from time $1, once each 1.5 s
    local phase="mod(t-$1,1.5)"
    echo "if(lt(t,$1), -100, if(lt($phase,0.75), $reader+($edge-$reader)*$phase/0.75, $edge-($edge-$reader)*($phase-0.75)/0.75))"
}
box() { echo "color=c=$1:s=$2:r=25:d=15,format=rgba"; }

ffmpeg -nostdin -v error -y -filter_complex "
    gradients=s=1280x720:r=25:d=15:c0=0x0d2440:c1=0x1f4e8c:c2=0x122f57:c3=0x2b6cb0:n=4:speed=0.012:seed=7,format=rgba[sky];
    $(box 0xffffff@0.35 940x4)[line]; $(box 0xe8eef6 120x120)[reader]; $(box 0x4d8fd1 120x180)[edge]; $(box 0xe8eef6 120x260)[server];
    $(box 0x1f4e8c 72x14)[bar1]; $(box 0x1f4e8c 72x14)[bar2]; $(box 0x1f4e8c 72x14)[bar3];
    $(box 0xffc145 72x72)[copy]; $(box 0xffc145 34x34)[dot1]; $(box 0xffffff 26x26)[dot2]; $(box 0x8ff0c4 26x26)[dot3]; $(box 0xffd98a 26x26)[dot4];
    [sky][line]overlay=170:358[a]; [a][reader]overlay=90:300[b]; [b][edge]overlay=500:270[c]; [c][server]overlay=1030:230[d];
    [d][bar1]overlay=1054:266[e]; [e][bar2]overlay=1054:306[f]; [f][bar3]overlay=1054:346[g];
    [g][copy]overlay=x='if(lt(t,4.7),-100,524)':y=280[h];
    [h][dot1]overlay=x='if(gt(t,6),-100,$first)-17':y=343[i];
    [i][dot2]overlay=x='$(later 6.0)-13':y=332:eval=frame[j];
    [j][dot3]overlay=x='$(later 6.5)-13':y=348:eval=frame[k];
    [k][dot4]overlay=x='$(later 7.0)-13':y=364:eval=frame,format=yuv420p[film]" \
    -map '[film]' -t 15 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -row-mt 1 -b:v 900k -g 50 -an "$unfinished"
chmod 644 "$unfinished"
mv "$unfinished" "$out"
echo "made $out"
