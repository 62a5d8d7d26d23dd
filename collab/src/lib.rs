//! collab
