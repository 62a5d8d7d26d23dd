//! The program `eduham-learning`: serve, import, migrate.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use eduham_learning::{
    app::{App, router},
    import::{self, Outcome},
    objects::Objects,
    purging::Purger,
    schema::MIGRATIONS,
    settings::Settings,
};
use eduham_platform::{
    clock,
    db::Db,
    serve::{self, Lifecycle},
    settings::Environment,
};

/// The learning backend of EduHam. Set by environment variables: DATABASE_URL, EDUHAM_LEARNING_LISTEN, EDUHAM_OBJECTS,
/// EDUHAM_EDGE_ADMIN, EDUHAM_EDGE_TOKEN, EDUHAM_DRAIN_DELAY, EDUHAM_DRAIN_DEADLINE, EDUHAM_LOG, EDUHAM_LOG_FORMAT.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve pages, media and JSON, and tell edges what was published (the default)
    Serve,
    /// Publish the course in a folder: one with a course.yaml, or one of HTML pages
    Import {
        /// The folder
        folder: PathBuf,
        /// The course's name in URLs, in place of the folder's own
        #[arg(long)]
        slug: Option<String>,
    },
    /// Bring the database up to date and end
    Migrate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command.unwrap_or(Command::Serve)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let (settings, telemetry) = Settings::read(Environment::of_process())?;
    telemetry.start();
    let db = Db::open(&settings.database, &MIGRATIONS).await?;
    let done = match command {
        Command::Serve => serve(settings, &db).await,
        Command::Import { folder, slug } => import(settings, &db, folder, slug).await,
        Command::Migrate => {
            println!("{} is up to date", settings.database);
            Ok(())
        }
    };
    db.close().await;
    done
}

async fn serve(settings: Settings, db: &Db) -> anyhow::Result<()> {
    let lifecycle = Lifecycle::new();
    let purger = Purger::new(db.clone(), settings.edges, settings.edge_token)?;
    let listener = serve::listen(settings.listen).await?;
    tracing::info!(listen = %settings.listen, database = %settings.database, "serving");
    let draining = lifecycle.draining().clone();
    lifecycle.tasks().spawn(async move { purger.run(&draining).await });
    let app = App { db: db.clone(), objects: Objects::new(settings.objects), lifecycle: lifecycle.clone() };
    serve::serve(listener, router(app), lifecycle, settings.drain).await?;
    Ok(())
}

async fn import(settings: Settings, db: &Db, folder: PathBuf, slug: Option<String>) -> anyhow::Result<()> {
    let objects = Objects::new(settings.objects);
    let outcome = import::import(db, &objects, &folder, slug, clock::now()).await?;
    say(&outcome);
    // Also when nothing was published: an earlier purge may be waiting.
    let purger = Purger::new(db.clone(), settings.edges, settings.edge_token)?;
    if !purger.has_edges() {
        if outcome.published {
            println!("no edge is configured here (EDUHAM_EDGE_ADMIN); the serving process purges those that it knows");
        }
        return Ok(());
    }
    for delivery in purger.round(clock::now()).await? {
        match delivery.refused {
            None => println!("purged {} at {}", delivery.keys, delivery.edge),
            Some(why) => println!(
                "not yet purged {} at {}: {why}; the serving process goes on trying",
                delivery.keys, delivery.edge
            ),
        }
    }
    Ok(())
}

fn say(outcome: &Outcome) {
    for warning in &outcome.warnings {
        eprintln!("warning: {warning}");
    }
    let Outcome { slug, version, modules, lessons, files, bytes, .. } = outcome;
    if outcome.published {
        println!(
            "published /courses/{slug}, version {version}: {modules} modules, {lessons} lessons, {files} files ({bytes} bytes)"
        );
    } else {
        println!("/courses/{slug} is unchanged, version {version} stays");
    }
}
