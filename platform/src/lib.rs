//! What both EduHam backends stand on: settings, database, ids, serving, telemetry.
//!
//! Both backends are ordinary axum services. They share no state in memory and meet only in the database, so what they
//! have in common is small: how the environment is read ([`settings`]), how SQLite and PostgreSQL are opened and
//! migrated ([`db`]), how ids are made ([`ids`]), and how a process starts, says that it is ready and drains ([`serve`]).

pub mod clock;
pub mod settings;
pub mod telemetry;

pub mod db;
pub mod ids;

pub mod serve;

#[cfg(feature = "testing")]
pub mod testing;
