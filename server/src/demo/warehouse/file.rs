//! Writes one data file, as the service would or as its Spark connector would. Column by column
//! with the `parquet` crate's own types, because Arrow's writer knows no INT96.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use featureflight_catalog::model::FeatureType;
use featureflight_catalog::{Error, Result};
use parquet::basic::{
    Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as PhysicalType,
};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type, Int96, Int96Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::definition::{Definition, Feature};
use super::version::{DAY, SECOND, Value, Version};

/// Who writes, which decides how a file looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    /// Snappy; features in the definition's order, then write time, api invocation time and the
    /// deletion flag; times as INT64 milliseconds in UTC.
    Service,
    /// Uncompressed, pages v1; columns as the job's frame had them (here: the event time last),
    /// api invocation time before write time; system columns required, times as INT96.
    Spark,
}

/// A column: which feature, or which of the three the store adds.
#[derive(Clone, Copy)]
enum Column {
    Feature(usize),
    WriteTime,
    ApiInvocationTime,
    IsDeleted,
}

/// The rows of one file. All of one `write_time` (microseconds).
#[derive(Debug)]
pub(super) struct DataFile<'a> {
    pub(super) definition: &'static Definition,
    pub(super) writer: Writer,
    pub(super) write_time: i64,
    pub(super) rows: &'a [Version],
}

impl DataFile<'_> {
    /// # Errors
    /// The file system's, naming the file.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::unavailable(format!("cannot write {}: {why}", path.display()))
        };
        let file = File::create(path).map_err(|error| failed(&error))?;
        self.encode(file).map_err(|error| failed(&error))
    }

    fn encode(&self, file: File) -> parquet::errors::Result<()> {
        let columns = self.columns();
        let fields = columns
            .iter()
            .map(|column| self.field(*column))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(
            Type::group_type_builder("schema")
                .with_fields(fields)
                .build()?,
        );
        let properties = WriterProperties::builder()
            .set_compression(match self.writer {
                Writer::Service => Compression::SNAPPY,
                Writer::Spark => Compression::UNCOMPRESSED,
            })
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by("featureflight demo".to_owned())
            .build();
        let out = BufWriter::new(file);
        let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        for column in columns {
            let mut out = group
                .next_column()?
                .ok_or_else(|| ParquetError::General("fewer columns than fields".to_owned()))?;
            self.write_column(column, &mut out)?;
            out.close()?;
        }
        group.close()?;
        writer.close()?;
        Ok(())
    }

    fn columns(&self) -> Vec<Column> {
        let features = self.definition.features_at(self.write_time / SECOND);
        let mut columns: Vec<_> = (0..features).map(Column::Feature).collect();
        match self.writer {
            Writer::Service => columns.extend([Column::WriteTime, Column::ApiInvocationTime]),
            Writer::Spark => {
                let event_time = columns.remove(1);
                columns.extend([event_time, Column::ApiInvocationTime, Column::WriteTime]);
            }
        }
        columns.push(Column::IsDeleted);
        columns
    }

    fn field(&self, column: Column) -> parquet::errors::Result<TypePtr> {
        let system = |name, kind, logical| {
            let repetition = match self.writer {
                Writer::Service => Repetition::OPTIONAL,
                Writer::Spark => Repetition::REQUIRED,
            };
            primitive(name, kind, repetition, logical)
        };
        let time = |name| match self.writer {
            Writer::Service => {
                let logical = LogicalType::timestamp(true, TimeUnit::MILLIS);
                system(name, PhysicalType::INT64, Some(logical))
            }
            Writer::Spark => system(name, PhysicalType::INT96, None),
        };
        match column {
            Column::Feature(at) => feature(&self.definition.features[at]),
            Column::WriteTime => time("write_time"),
            Column::ApiInvocationTime => time("api_invocation_time"),
            Column::IsDeleted => system("is_deleted", PhysicalType::BOOLEAN, None),
        }
    }

    fn write_column(
        &self,
        column: Column,
        out: &mut SerializedColumnWriter<'_>,
    ) -> parquet::errors::Result<()> {
        match column {
            Column::Feature(at) => self.write_feature(at, out),
            Column::WriteTime => self.write_times(|_| self.write_time, out),
            // A job stamps both its times alike.
            Column::ApiInvocationTime if self.writer == Writer::Spark => {
                self.write_times(|_| self.write_time, out)
            }
            Column::ApiInvocationTime => self.write_times(|row| row.api_invocation_time, out),
            Column::IsDeleted => {
                let values: Vec<_> = self.rows.iter().map(|row| row.is_deleted).collect();
                let levels = self.system_levels();
                out.typed::<BoolType>()
                    .write_batch(&values, levels.as_deref(), None)?;
                Ok(())
            }
        }
    }

    fn write_times(
        &self,
        time: impl Fn(&Version) -> i64,
        out: &mut SerializedColumnWriter<'_>,
    ) -> parquet::errors::Result<()> {
        let levels = self.system_levels();
        let times = self.rows.iter().map(time);
        match self.writer {
            Writer::Service => {
                let millis: Vec<_> = times.map(|time| time.div_euclid(1000)).collect();
                out.typed::<Int64Type>()
                    .write_batch(&millis, levels.as_deref(), None)?;
            }
            Writer::Spark => {
                let stamps: Vec<_> = times.map(int96).collect();
                out.typed::<Int96Type>()
                    .write_batch(&stamps, levels.as_deref(), None)?;
            }
        }
        Ok(())
    }

    /// System columns are never null, but the service declares them nullable.
    fn system_levels(&self) -> Option<Vec<i16>> {
        (self.writer == Writer::Service).then(|| vec![1; self.rows.len()])
    }

    fn write_feature(
        &self,
        at: usize,
        out: &mut SerializedColumnWriter<'_>,
    ) -> parquet::errors::Result<()> {
        let values = || self.rows.iter().map(|row| &row.values[at]);
        let levels: Vec<i16> = values()
            .map(|value| i16::from(*value != Value::Null))
            .collect();
        let levels = Some(levels.as_slice());
        match self.definition.features[at].kind {
            FeatureType::Integral => {
                let integers: Vec<_> = values().filter_map(Value::integral).collect();
                out.typed::<Int64Type>()
                    .write_batch(&integers, levels, None)?;
            }
            FeatureType::Fractional => {
                let doubles: Vec<_> = values().filter_map(Value::fractional).collect();
                out.typed::<DoubleType>()
                    .write_batch(&doubles, levels, None)?;
            }
            FeatureType::String | FeatureType::Other(_) => {
                let texts: Vec<ByteArray> = values()
                    .filter_map(Value::text)
                    .map(ByteArray::from)
                    .collect();
                out.typed::<ByteArrayType>()
                    .write_batch(&texts, levels, None)?;
            }
        }
        Ok(())
    }
}

fn feature(feature: &Feature) -> parquet::errors::Result<TypePtr> {
    let (physical, logical) = match feature.kind {
        FeatureType::Integral => (PhysicalType::INT64, None),
        FeatureType::Fractional => (PhysicalType::DOUBLE, None),
        FeatureType::String | FeatureType::Other(_) => {
            (PhysicalType::BYTE_ARRAY, Some(LogicalType::String))
        }
    };
    primitive(feature.name, physical, Repetition::OPTIONAL, logical)
}

fn primitive(
    name: &str,
    physical: PhysicalType,
    repetition: Repetition,
    logical: Option<LogicalType>,
) -> parquet::errors::Result<TypePtr> {
    let converted = match logical {
        Some(LogicalType::String) => ConvertedType::UTF8,
        Some(LogicalType::Timestamp(_)) => ConvertedType::TIMESTAMP_MILLIS,
        _ => ConvertedType::NONE,
    };
    let field = Type::primitive_type_builder(name, physical)
        .with_repetition(repetition)
        .with_converted_type(converted)
        .with_logical_type(logical)
        .build()?;
    Ok(Arc::new(field))
}

/// Nanoseconds of the day, then the Julian day.
fn int96(micros: i64) -> Int96 {
    const JULIAN_DAY_OF_EPOCH: i64 = 2_440_588;
    let nanos = micros.rem_euclid(DAY) * 1000;
    let day = micros.div_euclid(DAY) + JULIAN_DAY_OF_EPOCH;
    let low = |value: i64| u32::try_from(value & i64::from(u32::MAX)).unwrap_or(0);
    let mut stamp = Int96::new();
    stamp.set_data(low(nanos), low(nanos >> 32), low(day));
    stamp
}
