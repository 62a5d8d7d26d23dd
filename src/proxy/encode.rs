//! Bytes into content codings. Takes a processor for a while: never on a worker.

use std::io::{self, Write};

use bytes::Bytes;

use crate::cache::Coding;

/// About as fast as gzip at its best, and a sixth smaller; above it the time doubles with each step.
const BROTLI_QUALITY: u32 = 6;
/// 4 MiB: more than most bodies have, and every decoder has room for it (RFC 7932 9.1).
const BROTLI_WINDOW: u32 = 22;
const BROTLI_BUFFER: usize = 4096;
const ZSTD_LEVEL: i32 = 9;
/// 4 MiB: decoders must have room for 8 (RFC 9659).
const ZSTD_WINDOW: u32 = 22;
const GZIP_LEVEL: u32 = 8;

/// The bytes of `pieces`, `length` of them, in this coding.
///
/// # Errors
/// Of the encoder; memory is all that it writes to.
pub fn encode(coding: Coding, pieces: &[Bytes], length: u64) -> io::Result<Bytes> {
    let mut coded = Vec::new();
    match coding {
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(&mut coded, BROTLI_BUFFER, BROTLI_QUALITY, BROTLI_WINDOW);
            pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.into_inner();
        }
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut coded, ZSTD_LEVEL)?;
            encoder.window_log(ZSTD_WINDOW)?;
            encoder.set_pledged_src_size(Some(length))?;
            pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()?;
        }
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut coded, flate2::Compression::new(GZIP_LEVEL));
            pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()?;
        }
    }
    // What it grew beyond its length is not weighed in the store.
    Ok(coded.into_boxed_slice().into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::{collection::vec, prelude::*};
    use strum::IntoEnumIterator;

    use super::*;

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let read = match coding {
            Coding::Brotli => brotli::Decompressor::new(coded, BROTLI_BUFFER).read_to_end(&mut plain),
            Coding::Zstd => zstd::Decoder::new(coded).and_then(|mut decoder| decoder.read_to_end(&mut plain)),
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut plain),
        };
        read.expect("what was coded can be decoded");
        plain
    }

    proptest! {
        #[test]
        fn what_is_coded_is_decoded_to_the_same(pieces in vec(vec(0..4_u8, 0..5_000), 0..5)) {
            let whole = pieces.concat();
            let pieces: Vec<_> = pieces.into_iter().map(Bytes::from).collect();
            for coding in Coding::iter() {
                let coded = encode(coding, &pieces, whole.len() as u64).expect("memory takes everything");
                prop_assert_eq!(decoded(coding, &coded), whole.clone());
            }
        }
    }

    #[test]
    fn a_large_text_needs_no_more_room_than_decoders_must_have() {
        let words: Vec<u8> =
            (0..3_000_000_u32).flat_map(|at| (at.wrapping_mul(2_654_435_761) >> 27).to_be_bytes()).collect();
        let pieces: Vec<_> = words.chunks(1024 * 1024).map(Bytes::copy_from_slice).collect();
        for coding in Coding::iter() {
            let coded = encode(coding, &pieces, words.len() as u64).expect("memory takes everything");
            assert!(coded.len() * 2 < words.len(), "{coding:?}");
            assert_eq!(decoded(coding, &coded), words, "{coding:?}");
            if coding == Coding::Zstd {
                let mut decoder = zstd::Decoder::new(&coded[..]).expect("a decoder");
                decoder.window_log_max(23).expect("a window of 8 MiB");
                assert_eq!(io::copy(&mut decoder, &mut io::sink()).expect("it fits"), words.len() as u64);
            }
        }
    }
}
