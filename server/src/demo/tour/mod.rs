//! A guided tour of queries over the sample warehouse, through a real Flight SQL connection. Every
//! stop asserts something about its answer; the first claim that does not hold ends the tour with
//! an error.

mod answer;
mod chapters;

use std::io::Write;
use std::time::Instant;

use arrow::compute::concat_batches;
use featureflight_catalog::{Error, Result};
use featureflight_cli::{CliError, Connection};
use futures::TryStreamExt;

use super::warehouse::Facts;
use answer::Answer;

/// Rows of an answer that are shown.
const SHOWN: usize = 6;

/// Takes the tour on `connection`, telling it on `out`.
///
/// # Errors
/// The first statement that fails, or claim that does not hold.
pub(crate) async fn take(
    connection: Connection,
    facts: &Facts,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let started = Instant::now();
    let mut tour = Tour {
        connection,
        facts,
        out,
        stops: 0,
        claims: 0,
    };
    chapters::state(&mut tour).await?;
    chapters::system_time(&mut tour).await?;
    chapters::both_clocks(&mut tour).await?;
    chapters::tombstones(&mut tour).await?;
    chapters::training_set(&mut tour).await?;
    chapters::leak(&mut tour).await?;
    chapters::by_hand(&mut tour).await?;
    chapters::known_at(&mut tour).await?;
    chapters::asof_join(&mut tour).await?;
    chapters::raw(&mut tour).await?;
    let (stops, claims) = (tour.stops, tour.claims);
    let seconds = started.elapsed().as_secs_f64();
    tour.tell(&format!(
        "\n{stops} stops, {claims} claims checked, {seconds:.1} s.\n"
    ))
}

struct Tour<'a> {
    connection: Connection,
    facts: &'a Facts,
    out: &'a mut (dyn Write + Send),
    stops: u32,
    claims: u32,
}

impl Tour<'_> {
    /// Says what comes, runs `sql`, and shows its answer.
    async fn stop(&mut self, title: &str, why: &str, sql: &str) -> Result<Answer> {
        self.stops += 1;
        self.tell(&format!("\n── {}. {title}\n\n{why}\n\n", self.stops))?;
        self.run(sql).await
    }

    /// One more statement at the same stop.
    async fn run(&mut self, sql: &str) -> Result<Answer> {
        for line in sql.lines() {
            self.tell(&format!("    {line}\n"))?;
        }
        let answer = self.ask(sql).await?;
        let millis = answer.took.as_millis();
        if answer.batch.num_columns() > 0 {
            self.tell(&format!("\n{}\n", answer.table(SHOWN)?))?;
        }
        let rows = answer.rows();
        let cut = if rows > SHOWN {
            format!(", the first {SHOWN} shown")
        } else {
            String::new()
        };
        let plural = if rows == 1 { "" } else { "s" };
        self.tell(&format!("{rows} row{plural}{cut}, {millis} ms\n\n"))?;
        Ok(answer)
    }

    /// Runs `sql` unseen.
    async fn ask(&mut self, sql: &str) -> Result<Answer> {
        let started = Instant::now();
        let failed = |error: CliError| Error::internal(format!("the tour's query failed: {error}"));
        let rows = self.connection.query(sql).await.map_err(failed)?;
        let batches: Vec<_> = rows.batches.try_collect().await.map_err(failed)?;
        let batch = concat_batches(&rows.schema, &batches)
            .map_err(|error| Error::internal(format!("cannot read the answer: {error}")))?;
        Ok(Answer {
            batch,
            took: started.elapsed(),
        })
    }

    /// Ends the tour unless `truth`.
    fn claim(&mut self, truth: bool, claim: &str) -> Result<()> {
        self.claims += 1;
        if truth {
            self.tell(&format!("  ✓ {claim}\n"))
        } else {
            Err(Error::internal(format!(
                "the answer above is wrong: it should hold that {claim}"
            )))
        }
    }

    fn tell(&mut self, text: &str) -> Result<()> {
        self.out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
            .map_err(|error| Error::unavailable(format!("cannot write: {error}")))
    }
}
