//! The tables of this service and how they came to be.

use eduham_platform::db::{MigrationSql, MigrationStep, Migrations};

/// All steps so far. The service may share its database with others, hence its own table of migrations.
pub const MIGRATIONS: Migrations = Migrations {
    table: "_migrations_learning",
    steps: &[MigrationStep {
        version: 1,
        name: "courses",
        sql: MigrationSql::Same(include_str!("../migrations/0001_courses.sql")),
    }],
};
