//! `featureflight demo`: a sample warehouse, a server over it, and a guided tour of queries through
//! a real Flight connection.

mod tour;
pub mod warehouse;

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use featureflight_catalog::{Error, Kind, Result};
use featureflight_cli::{Connection, Target};
use tokio_util::sync::CancellationToken;

use crate::config::{CatalogKind, Config, StorageKind};
use crate::serve::{self, ServerHandle};
use crate::telemetry;
use warehouse::{Scale, Warehouse};

/// Makes a sample feature store, serves it, and tours it through a real connection.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// End after the tour
    #[arg(long)]
    once: bool,

    /// Serve on this address; by default the usual one, or a free port when that is taken
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// Keep the sample warehouse (about 60 MB) in this directory; by default below the user's cache
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// How many customers the sample has
    #[arg(long, hide = true, default_value_t = Scale::default().customers,
          value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    customers: u32,
}

/// Runs the demo until Ctrl-C, or with `--once` until the tour is over.
///
/// # Errors
/// One sentence for the person at the terminal: no room for the warehouse, no address to listen
/// on, or an answer of the tour that cannot be right.
pub async fn run(args: DemoArgs) -> Result<()> {
    let stop = CancellationToken::new();
    let interrupted = serve::interrupted()?;
    let trigger = stop.clone();
    tokio::spawn(async move {
        interrupted.await;
        trigger.cancel();
    });
    let scale = Scale {
        customers: args.customers,
        ..Scale::default()
    };
    let dir = args.dir.clone().unwrap_or_else(|| default_dir(scale));
    let warehouse = match make(dir, scale, stop.clone()).await {
        Err(error) if error.kind == Kind::Cancelled => return Ok(()),
        made => made?,
    };
    let server = start(&args, &warehouse, &stop).await?;
    let url = format!("grpc://{}", server.local_addr);
    eprintln!("serving {} on {url}", warehouse.dir.display());
    let toured = tokio::select! {
        toured = tour(&url, &warehouse) => toured,
        () = stop.cancelled() => return server.finished().await,
    };
    if args.once || toured.is_err() {
        let ended = server.stop().await;
        return toured.and(ended);
    }
    println!("{}", how_to_connect(&url));
    server.finished().await
}

async fn tour(url: &str, warehouse: &Warehouse) -> Result<()> {
    let failed = |error: featureflight_cli::CliError| Error::unavailable(error.to_string());
    let target = Target::new(url, None, None, Vec::new()).map_err(failed)?;
    let connection = Connection::open(target).await.map_err(failed)?;
    tour::take(connection, &warehouse.facts, &mut std::io::stdout()).await
}

/// Serves the warehouse. The tour shows results, so only warnings are logged.
async fn start(
    args: &DemoArgs,
    warehouse: &Warehouse,
    stop: &CancellationToken,
) -> Result<ServerHandle> {
    let mut config = Config::default();
    config.catalog.kind = Some(CatalogKind::Files);
    config.catalog.directory = Some(warehouse.dir.clone());
    config.storage.kind = Some(StorageKind::Warehouse);
    config.storage.directory = Some(warehouse.dir.clone());
    "warn".clone_into(&mut config.log.level);
    telemetry::start(&config.log)?;
    if let Some(listen) = &args.listen {
        config.server.listen.clone_from(listen);
        return serve::serve(&config, stop.clone().cancelled_owned()).await;
    }
    match serve::serve(&config, stop.clone().cancelled_owned()).await {
        Err(error) if error.kind == Kind::Unavailable => {
            "127.0.0.1:0".clone_into(&mut config.server.listen);
            serve::serve(&config, stop.clone().cancelled_owned()).await
        }
        served => served,
    }
}

/// Makes the warehouse or finds it, telling the terminal how far it is.
async fn make(dir: PathBuf, scale: Scale, stop: CancellationToken) -> Result<Warehouse> {
    let made = tokio::task::spawn_blocking(move || {
        let live = std::io::stderr().is_terminal();
        let started = std::time::Instant::now();
        let warehouse = Warehouse::open_or_make(&dir, scale, &mut |percent| {
            tell_progress(&dir, percent, live);
            if stop.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if live {
            eprint!("\r\x1b[K");
        }
        let warehouse = warehouse?;
        let groups = warehouse.facts.groups.values();
        let (versions, files) = groups.fold((0, 0), |(v, f), group| {
            (v + group.versions, f + group.files)
        });
        if warehouse.made {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("made {versions} versions in {files} files in {seconds:.1} s");
        } else {
            eprintln!("found {versions} versions in {files} files");
        }
        Ok(warehouse)
    });
    made.await
        .map_err(|error| Error::internal("making the warehouse broke off").with_source(error))?
}

fn tell_progress(dir: &Path, percent: u32, live: bool) {
    if live {
        eprint!(
            "\rmaking the sample warehouse in {}: {percent} %",
            dir.display()
        );
        // Progress that cannot be shown is not worth failing for.
        let _ = std::io::stderr().flush();
    } else if percent == 0 {
        eprintln!("making the sample warehouse in {}", dir.display());
    }
}

/// Below the user's cache, named by what it holds, so that another version makes another one.
fn default_dir(scale: Scale) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    cache.join("featureflight").join(warehouse::name(scale))
}

fn how_to_connect(url: &str) -> String {
    format!(
        r#"The server stays until Ctrl-C. In a second terminal:

    featureflight sql --url {url}

or from Python (pip install adbc-driver-flightsql adbc-driver-manager pyarrow):

    import adbc_driver_flightsql.dbapi as flightsql
    with flightsql.connect("{url}", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM customers FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-15' LIMIT 5")
        print(cursor.fetch_arrow_table())
"#
    )
}
