//! The learning backend: courses, their public pages, media and JSON, and publishing.
//!
//! A course is a folder of files. [`import`] reads it, refuses what it cannot use, and publishes it in one transaction;
//! [`objects`] keeps the files by their content, [`catalogue`] answers what is published. [`pages`], [`api`] and [`media`]
//! serve it to anybody: nothing here knows who is asking, so that an edge may store every answer that [`caching`] says
//! may be stored. The transaction that publishes also writes what edges must forget; [`purging`] tells them.

pub mod app;
pub mod settings;

pub mod catalogue;
pub mod objects;
pub mod schema;

pub mod import;
pub mod purging;

pub mod api;
pub mod caching;
pub mod conditional;
pub mod failure;
pub mod media;
pub mod pages;
pub mod ranges;
pub mod site_assets;
