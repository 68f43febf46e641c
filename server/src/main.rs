//! The `featureflight` binary. Everything lives in the library, so that tests can start a server in
//! their own process.

fn main() -> std::process::ExitCode {
    featureflight_server::commands::main()
}
