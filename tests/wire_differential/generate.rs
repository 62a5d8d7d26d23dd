//! Makes up messages: mostly right, then a little wrong.

/// SplitMix64: the same numbers on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).expect("less than a usize")
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// The first choice most of the time, so that a whole message has a chance.
    pub(crate) fn choose<'a>(&mut self, choices: &[&'a [u8]]) -> &'a [u8] {
        if self.once_in(6) { choices[self.below(choices.len())] } else { choices[0] }
    }

    /// Any choice.
    pub(crate) fn any<'a>(&mut self, choices: &[&'a [u8]]) -> &'a [u8] {
        choices[self.below(choices.len())]
    }
}

const LINE_ENDS: &[&[u8]] = &[b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r"];

const METHODS: &[&[u8]] = &[b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"get", b"M-SEARCH", b"G@T"];

const TARGETS: &[&[u8]] = &[
    b"/",
    b"/a/b?c=d",
    b"/%41%2f",
    b"/a?b?c",
    b"//a",
    b"/a\"b",
    b"/a|b{c}",
    b"/a\\b",
    b"/^`",
    b"/<a>",
    b"*",
    b"a",
    b"/a#b",
    b"/\xc3\xa9",
    b"http://a/b",
    b"http://a",
    b"http://b?c",
    b"http://u@a/",
    b"/a:b@c;d=e,f",
];

const VERSIONS: &[&[u8]] =
    &[b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10"];

const HOSTS: &[&[u8]] = &[
    b"Host: a",
    b"host:a",
    b"Host: a:80",
    b"Host: [::1]",
    b"Host: a.",
    b"Host:",
    b"Host: a b",
    b"Host : a",
    b"Host: a@b",
    b"Host: a/b",
    b"Host: a,b",
    b"Host: a\r\nHost: a",
    b"X: y",
];

const FIELDS: &[&[u8]] = &[
    b"X: y",
    b"X:",
    b"X:y",
    b"X: \t y \t",
    b"X: caf\xc3\xa9",
    b"X_Y: z",
    b"Accept: */*",
    b"Cookie: a=b; c=d",
    b"X: a\0b",
    b"X : y",
    b"X: a\r\n b",
    b" X: y",
    b"X",
    b": y",
    b"X: a\rb",
    b"X(): y",
    b"X: \x7f",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: keep-alive\r\nConnection: close",
    b"Expect: 100-continue",
    b"Upgrade: x",
];

/// With lengths around that of [`BODIES`].
const FRAMINGS: &[&[u8]] = &[
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"X: y",
    b"Content-Length: 0",
    b"Content-Length: 44",
    b"Content-Length: 05",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 44",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: , chunked",
    b"Transfer-Encoding: x y, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: xchunked",
    b"Content-Length: 5 5",
    b"Content-Length: 18446744073709551621",
    b"Content-Length:",
    b"Content_Length: 5",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: chunked;a=b",
];

const BODIES: &[&[u8]] = &[b"hello", b"GET /evil HTTP/1.1\r\nHost: a\r\nX: 45678\r\n\r\n", b"", b"\r\n", b"0\r\n\r\n"];

const CHUNK_SIZES: &[&[u8]] = &[
    b"5",
    b"05",
    b"5;a",
    b"5;a=b",
    b"5;a=\"b;c\"",
    b"5 ;a",
    b"5 ",
    b" 5",
    b"+5",
    b"0x5",
    b"5;",
    b"5;a=",
    b"5;\xff",
    b"4",
    b"6",
    b"",
    b"00000000000000005",
    b"10000000000000005",
    b"5;a\rb",
    b"5,5",
    b"g",
];

const CHUNK_DATA: &[&[u8]] = &[b"hello", b"0\r\n\r\n", b"\r\n0\r\n", b"a"];

const LAST_CHUNKS: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"0;a\r\n\r\n",
    b"00\r\n\r\n",
    b"0\r\n",
    b"0\n\n",
    b"0\r\nX\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nX: \0\r\n\r\n",
    b"",
];

const STATUSES: &[&[u8]] = &[
    b"200 OK",
    b"200",
    b"200 ",
    b"404 Not Found",
    b"204 No Content",
    b"304 Not Modified",
    b"500 \xc3\x9c",
    b"600 x",
    b"99 x",
    b"2000 x",
    b"200 a\0",
    b"200  OK",
    b"100 Continue",
    b"103 Early Hints",
];

const SPECIALS: &[u8] = b"\r\n\t :;,\0\x7f\xff\"=0-5\x0b\\/#";

/// One to three requests on a connection.
pub(crate) fn requests(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(3) {
        if random.once_in(12) {
            out.extend(random.any(&[b"\r\n", b"\r\n\r\n", b"\n", b" "]));
        }
        let space = |random: &mut Random| if random.once_in(30) { random.any(&[b"  ", b"\t", b""]) } else { b" " };
        out.extend(if random.once_in(3) { random.any(METHODS) } else { METHODS[0] });
        out.extend(space(random));
        out.extend(random.choose(TARGETS));
        out.extend(space(random));
        out.extend(if random.once_in(4) { random.any(VERSIONS) } else { VERSIONS[0] });
        line_end(random, &mut out);
        out.extend(random.choose(HOSTS));
        line_end(random, &mut out);
        fields_and_body(random, &mut out);
    }
    mutate(random, &mut out);
    out
}

/// One to three responses on a connection.
pub(crate) fn responses(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(3) {
        out.extend(random.choose(VERSIONS));
        out.extend(b" ");
        out.extend(random.choose(STATUSES));
        line_end(random, &mut out);
        fields_and_body(random, &mut out);
    }
    mutate(random, &mut out);
    out
}

fn line_end(random: &mut Random, out: &mut Vec<u8>) {
    out.extend(if random.once_in(25) { random.any(LINE_ENDS) } else { b"\r\n" });
}

fn fields_and_body(random: &mut Random, out: &mut Vec<u8>) {
    for _ in 0..random.below(3) {
        out.extend(random.choose(FIELDS));
        line_end(random, out);
    }
    let framing = if random.once_in(3) { random.any(FRAMINGS) } else { FRAMINGS[random.below(3)] };
    out.extend(framing);
    line_end(random, out);
    line_end(random, out);
    if !framing.starts_with(b"Transfer-Encoding") || random.once_in(10) {
        // Mostly the body that fits the first framing.
        let fits = if framing == b"Content-Length: 5" { BODIES[0] } else { b"" };
        out.extend(if random.once_in(3) { random.any(BODIES) } else { fits });
        return;
    }
    for _ in 0..random.below(4) {
        out.extend(random.choose(CHUNK_SIZES));
        line_end(random, out);
        out.extend(random.choose(CHUNK_DATA));
        line_end(random, out);
    }
    out.extend(random.choose(LAST_CHUNKS));
}

/// Now and then a few bytes are changed, taken out, put in or said twice.
fn mutate(random: &mut Random, out: &mut Vec<u8>) {
    if random.once_in(2) {
        return;
    }
    for _ in 0..=random.below(2) {
        if out.is_empty() {
            return;
        }
        let at = random.below(out.len());
        let special = SPECIALS[random.below(SPECIALS.len())];
        match random.below(4) {
            0 => out[at] = special,
            1 => out.insert(at, special),
            2 => drop(out.remove(at)),
            _ => {
                let until = (at + 1 + random.below(20)).min(out.len());
                let again = out[at..until].to_vec();
                out.splice(at..at, again);
            }
        }
    }
}
