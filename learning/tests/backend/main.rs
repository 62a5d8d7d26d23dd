//! The learning backend through its router, on SQLite and on PostgreSQL.
//!
//! Each case is a function that is handed an empty backend. On SQLite it is a test of its own; on PostgreSQL all cases
//! share one private cluster, each with a database of its own, since starting a cluster takes longer than any of them.

mod support;

mod answers;
mod importing;
mod media;
mod purging;

use eduham_platform::testing::PostgresCluster;
use support::Bench;

/// Runs each case on both databases.
macro_rules! on_both {
    ($($module:ident::$case:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$module::$case(super::Bench::sqlite().await).await;
                }
            )*
        }

        #[tokio::test]
        async fn all_of_it_holds_on_postgresql() {
            let cluster = PostgresCluster::start().await;
            $(
                eprintln!("on PostgreSQL: {}::{}", stringify!($module), stringify!($case));
                $module::$case(Bench::open(cluster.database().await).await).await;
            )*
        }
    };
}

on_both! {
    answers::every_path_says_who_may_store_it_and_how_it_is_purged,
    answers::pages_lead_from_lesson_to_lesson,
    answers::a_page_that_the_client_has_is_not_sent_again,
    answers::a_course_is_found_by_slug_by_id_and_by_words,
    answers::the_catalogue_is_read_in_steps,
    answers::a_lesson_outside_the_preview_keeps_its_text,
    answers::failures_are_pages_or_problems_and_are_stored_by_nobody,
    media::ranges_conditions_and_heads_are_exact,
    media::only_addresses_that_were_published_exist,
    importing::links_and_files_become_addresses_of_this_site,
    importing::the_same_folder_again_is_no_new_version,
    importing::a_new_edition_keeps_ids_and_the_files_of_the_old_one,
    importing::a_folder_that_is_wrong_is_refused_with_everything_that_is_wrong,
    importing::two_imports_at_once_do_not_mix,
    importing::a_folder_of_html_pages_becomes_a_course,
    importing::the_bundled_course_is_published,
    purging::a_publication_is_told_to_every_edge_until_each_has_it,
    purging::deliveries_survive_a_restart,
    purging::without_an_edge_the_serving_process_marks_rows_done,
    purging::the_worker_finds_what_another_process_has_published,
}
