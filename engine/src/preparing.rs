//! From text to what a statement will answer: its schema and its parameters. Runs on a planning
//! thread, as [`pinning`](crate::pinning) does.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use featureflight_catalog::Result;
use featureflight_udf::planner::Planned as PlannedQuery;

use crate::boundary::{announced, announced_type, sent};
use crate::effects;
use crate::engine::{Core, Prepared};
use crate::erasing::{self, Forgetting};
use crate::error::classify;
use crate::nullability::{never_null, with_nulls};
use crate::pinning::{Scope, parse, shown_types};
use crate::session::SessionView;
use crate::settings;
use crate::statement::Command;
use crate::writes::{self, Deletion, Insertion, Optimization};

/// Plans a statement for its schema only.
pub(crate) async fn prepare(
    core: Arc<Core>,
    session: SessionView,
    sql: String,
) -> Result<Prepared> {
    let command = parse(&core, &sql)?;
    let is_update = command.is_effect();
    let scope = Scope {
        core,
        session,
        parameters: None,
    };
    let (schema, parameters) = match command {
        Command::Query(statement) => {
            let ground = scope.ground(scope.session.settings.clocks);
            let PlannedQuery { plan, parameters } = ground.plan(statement).await?;
            let plan = shown_types(plan, &scope.session.settings);
            // Types that only analysis settles; a plan with open parameters may not get there.
            let options = ground.state.config_options();
            let analyzed =
                ground
                    .state
                    .analyzer()
                    .execute_and_check(plan.clone(), options, |_, _| {});
            let typed = match analyzed {
                Ok(analyzed) => analyzed,
                Err(_) if !parameters.is_empty() => plan.clone(),
                Err(error) => return Err(classify(error)),
            };
            let schema = with_nulls(typed.schema().as_arrow(), &never_null(&plan));
            (announced(&schema), parameters)
        }
        Command::Show(_) => (settings::show_schema(), Vec::new()),
        Command::Insert(insert) => {
            let parameters = Insertion::new(*insert)?.parameters(&scope).await?;
            (writes::schema(), parameters)
        }
        Command::Delete(delete) => {
            let parameters = Deletion::new(*delete)?.parameters(&scope).await?;
            (writes::schema(), parameters)
        }
        Command::Forget(call) => {
            Forgetting::plan(&scope, &call)?;
            (erasing::forgotten_schema(), Vec::new())
        }
        Command::Optimize(name) => {
            Optimization::plan(&scope, &name)?;
            (writes::optimized_schema(), Vec::new())
        }
        effect => (effects::schema(), effects::check(&scope, effect).await?),
    };
    Ok(Prepared {
        schema: sent(schema, &scope.session.settings),
        parameters: parameter_fields(&parameters),
        is_update,
    })
}

fn parameter_fields(types: &[Option<DataType>]) -> SchemaRef {
    let fields: Fields = types
        .iter()
        .enumerate()
        .map(|(index, found)| {
            let found = found.as_ref().map_or(DataType::Utf8, |found| {
                match announced_type(found) {
                    // JDBC binds milliseconds whatever the unit is.
                    DataType::Timestamp(_, zone) => {
                        DataType::Timestamp(TimeUnit::Millisecond, zone)
                    }
                    other => other,
                }
            });
            Field::new(format!("${}", index + 1), found, true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}
