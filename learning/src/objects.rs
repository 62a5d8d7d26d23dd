//! The files of courses, kept in a directory by the SHA-256 of their content.
//!
//! An object is written beside its place and moved there whole, so a reader finds all of it or nothing, and the same
//! content is kept once however often it is imported. Objects are never changed.

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use eduham_platform::ids::new_id;
use sha2::{Digest, Sha256};

/// Bytes copied at a time.
const COPY_BYTES: usize = 64 * 1024;

/// Why an object cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}", .path.display())]
pub struct ObjectError {
    path: PathBuf,
    source: io::Error,
}

/// What an object is known by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Object {
    /// SHA-256 of its content, 64 lower-case hex digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
}

impl Objects {
    /// Objects below `root`, which is made when the first one is kept.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Keeps what `content` yields. Blocking.
    ///
    /// # Errors
    /// `content` cannot be read or the directory not written; then nothing is kept.
    pub fn keep(&self, mut content: impl Read + Seek, now: SystemTime) -> Result<Object, ObjectError> {
        let incoming = self.root.join("incoming");
        let beside = incoming.join(new_id(now));
        let error = |source| ObjectError { path: beside.clone(), source };
        // Most files of a course are the same as last time: reading one is much cheaper than writing it durably.
        let known = hash(&mut content, &mut io::sink()).map_err(error)?;
        if self.place(&known.sha256).is_file() {
            return Ok(known);
        }
        fs::create_dir_all(&incoming).map_err(error)?;
        let kept = content.rewind().and_then(|()| self.write(&mut content, &beside));
        if kept.is_err() {
            // Best effort: what is left in `incoming` is never served.
            drop(fs::remove_file(&beside));
        }
        kept.map_err(error)
    }

    /// Keeps `bytes`. Blocking.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn keep_bytes(&self, bytes: &[u8], now: SystemTime) -> Result<Object, ObjectError> {
        self.keep(Cursor::new(bytes), now)
    }

    /// Keeps the file at `path`. Blocking.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn keep_file(&self, path: &Path, now: SystemTime) -> Result<Object, ObjectError> {
        let file = File::open(path).map_err(|source| ObjectError { path: path.to_owned(), source })?;
        self.keep(file, now)
    }

    /// Opens the object.
    ///
    /// # Errors
    /// It is not there, which is a fault of this installation: only what was kept is ever published.
    pub async fn open(&self, sha256: &str) -> Result<tokio::fs::File, ObjectError> {
        let path = self.place(sha256);
        tokio::fs::File::open(&path).await.map_err(|source| ObjectError { path, source })
    }

    /// What a later failure on an opened object is called.
    #[must_use]
    pub fn error(&self, sha256: &str, source: io::Error) -> ObjectError {
        ObjectError { path: self.place(sha256), source }
    }

    /// Writes the object beside its place and moves it there.
    fn write(&self, content: &mut impl Read, beside: &Path) -> io::Result<Object> {
        let mut file = File::options().write(true).create_new(true).open(beside)?;
        let object = hash(content, &mut file)?;
        // The row that names the object is durable, so the object must be too, and before it.
        file.sync_data()?;
        let place = self.place(&object.sha256);
        if let Some(directory) = place.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::rename(beside, &place)?;
        Ok(object)
    }

    fn place(&self, sha256: &str) -> PathBuf {
        let (directory, rest) = sha256.split_at_checked(2).unwrap_or(("", sha256));
        self.root.join(directory).join(rest)
    }
}

/// Copies `content` to `to`; what it is known by is made of the very bytes that were copied.
fn hash(content: &mut impl Read, to: &mut impl Write) -> io::Result<Object> {
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => return Ok(Object { sha256: hex(&hasher.finalize()), bytes }),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of `bytes` in lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use eduham_platform::clock::from_unix_ms;

    use super::*;

    #[test]
    fn the_same_content_is_kept_once_and_nothing_half() {
        let place = tempfile::tempdir().expect("a directory");
        let objects = Objects::new(place.path().join("objects"));
        let now = from_unix_ms(1_795_486_897_000);
        let first = objects.keep_bytes(b"hello", now).expect("kept");
        assert_eq!(first.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(objects.keep_bytes(b"hello", now).expect("kept"), first);

        /// Yields some bytes and then fails, the second time it is read.
        struct Broken(Cursor<&'static [u8]>, u32);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 if self.1 > 0 => Err(io::Error::other("broken")),
                    read => Ok(read),
                }
            }
        }
        impl Seek for Broken {
            fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
                self.1 += 1;
                self.0.seek(to)
            }
        }
        objects.keep(Broken(Cursor::new(b"half"), 0), now).expect_err("the source is broken");

        let left = fs::read_dir(place.path().join("objects/incoming")).expect("exists").count();
        assert_eq!(left, 0);
        let kept = fs::read(place.path().join("objects/2c").join(&first.sha256[2..])).expect("in its place");
        assert_eq!(kept, b"hello");
    }
}
