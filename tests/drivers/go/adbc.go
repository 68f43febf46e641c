package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/apache/arrow-adbc/go/adbc"
	driver "github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

type adbcAdapter struct {
	database   adbc.Database
	connection adbc.Connection
}

var background = context.Background()

func (a *adbcAdapter) connect(asked request) error {
	if err := a.close(); err != nil {
		return err
	}
	options := map[string]string{adbc.OptionKeyURI: fmt.Sprintf("grpc://%s:%d", asked.Host, asked.Port)}
	for name, value := range asked.Headers {
		options[driver.OptionRPCCallHeaderPrefix+name] = value
	}
	if asked.User != nil {
		options[adbc.OptionKeyUsername], options[adbc.OptionKeyPassword] = *asked.User, *asked.Password
	}
	var err error
	if a.database, err = driver.NewDriver(memory.DefaultAllocator).NewDatabase(options); err != nil {
		return err
	}
	a.connection, err = a.database.Open(background)
	return err
}

func (a *adbcAdapter) close() error {
	if a.connection == nil {
		return nil
	}
	connection := a.connection
	a.connection = nil
	return errors.Join(connection.Close(), a.database.Close())
}

// each calls `use` with every batch of a statement.
func (a *adbcAdapter) each(ctx context.Context, sql string, parameters []parameter, use func(arrow.RecordBatch)) error {
	statement, err := a.connection.NewStatement()
	if err != nil {
		return err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(sql); err != nil {
		return err
	}
	if parameters != nil {
		if err := statement.Prepare(ctx); err != nil {
			return err
		}
		bound, err := record(parameters)
		if err != nil {
			return err
		}
		defer bound.Release()
		if err := statement.Bind(ctx, bound); err != nil {
			return err
		}
	}
	reader, _, err := statement.ExecuteQuery(ctx)
	if err != nil {
		return err
	}
	defer reader.Release()
	use(array.NewRecordBatch(reader.Schema(), nil, 0))
	for reader.Next() {
		use(reader.RecordBatch())
	}
	return reader.Err()
}

func (a *adbcAdapter) run(sql string) error {
	return a.each(background, sql, nil, func(arrow.RecordBatch) {})
}

func (a *adbcAdapter) query(sql string, parameters []parameter) (table, error) {
	found := table{Rows: [][]*string{}}
	err := a.each(background, sql, parameters, func(batch arrow.RecordBatch) {
		if found.Columns == nil {
			for _, field := range batch.Schema().Fields() {
				found.Columns = append(found.Columns, field.Name)
			}
		}
		for row := range int(batch.NumRows()) {
			cells := []*string{}
			for _, column := range batch.Columns() {
				cells = append(cells, cell(column, row))
			}
			found.Rows = append(found.Rows, cells)
		}
	})
	return found, err
}

func (a *adbcAdapter) update(sql string, rows [][]parameter) (int64, error) {
	statement, err := a.connection.NewStatement()
	if err != nil {
		return 0, err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(sql); err != nil {
		return 0, err
	}
	if rows != nil {
		if err := statement.Prepare(background); err != nil {
			return 0, err
		}
		bound, err := record(rows...)
		if err != nil {
			return 0, err
		}
		defer bound.Release()
		if err := statement.Bind(background, bound); err != nil {
			return 0, err
		}
	}
	return statement.ExecuteUpdate(background)
}

func (a *adbcAdapter) drain(sql string) (drained, error) {
	found := drained{Sums: map[string]float64{}}
	err := a.each(background, sql, nil, func(batch arrow.RecordBatch) {
		found.Rows += batch.NumRows()
		for place, column := range batch.Columns() {
			name := batch.ColumnName(place)
			switch values := column.(type) {
			case *array.Int64:
				for row, value := range values.Int64Values() {
					if values.IsValid(row) {
						found.Sums[name] += float64(value)
					}
				}
			case *array.Float64:
				for row, value := range values.Float64Values() {
					if values.IsValid(row) {
						found.Sums[name] += value
					}
				}
			}
		}
	})
	return found, err
}

// cell is the text of one value; nested ones are JSON of such texts.
func cell(column arrow.Array, row int) *string {
	if column.IsNull(row) {
		return nil
	}
	var text string
	switch values := column.(type) {
	case *array.Float32:
		text = strconv.FormatFloat(float64(values.Value(row)), 'g', -1, 64)
	case *array.Float64:
		text = strconv.FormatFloat(values.Value(row), 'g', -1, 64)
	case *array.Binary:
		text = hex.EncodeToString(values.Value(row))
	case *array.Timestamp:
		unit := values.DataType().(*arrow.TimestampType).Unit
		text = values.Value(row).ToTime(unit).Format(time.RFC3339Nano)
	case *array.FixedSizeBinary:
		text = hex.EncodeToString(values.Value(row))
	case *array.Time64:
		text = values.Value(row).FormattedString(values.DataType().(*arrow.Time64Type).Unit)
	case *array.Duration:
		unit := values.DataType().(*arrow.DurationType).Unit
		text = fmt.Sprintf("PT%sS", strconv.FormatFloat((time.Duration(values.Value(row))*unit.Multiplier()).Seconds(), 'f', -1, 64))
	case *array.MonthDayNanoInterval:
		span := values.Value(row)
		text = fmt.Sprintf("P%dM%dDT%sS", span.Months, span.Days, strconv.FormatFloat(float64(span.Nanoseconds)/1e9, 'f', -1, 64))
	case *array.Map:
		from, to := values.ValueOffsets(row)
		entries := map[string]*string{}
		for place := int(from); place < int(to); place++ {
			entries[*cell(values.Keys(), place)] = cell(values.Items(), place)
		}
		encoded, _ := json.Marshal(entries)
		text = string(encoded)
	case *array.Date32:
		text = values.Value(row).FormattedString()
	case *array.List:
		from, to := values.ValueOffsets(row)
		items := []*string{}
		for place := from; place < to; place++ {
			items = append(items, cell(values.ListValues(), int(place)))
		}
		encoded, _ := json.Marshal(items)
		text = string(encoded)
	case *array.Struct:
		fields := map[string]*string{}
		for place, field := range values.DataType().(*arrow.StructType).Fields() {
			fields[field.Name] = cell(values.Field(place), row)
		}
		encoded, _ := json.Marshal(fields)
		text = string(encoded)
	default:
		text = column.ValueStr(row)
	}
	return &text
}

var kinds = map[string]arrow.DataType{
	"text": arrow.BinaryTypes.String, "int": arrow.PrimitiveTypes.Int64, "double": arrow.PrimitiveTypes.Float64,
	"decimal": &arrow.Decimal128Type{Precision: 38, Scale: 10}, "timestamp": arrow.FixedWidthTypes.Timestamp_us,
	"boolean": arrow.FixedWidthTypes.Boolean, "date": arrow.FixedWidthTypes.Date32, "binary": arrow.BinaryTypes.Binary,
}

func record(rows ...[]parameter) (arrow.RecordBatch, error) {
	fields, values := []arrow.Field{}, [][]*string{}
	for place, bound := range rows[0] {
		fields = append(fields, arrow.Field{Name: fmt.Sprint(place), Type: kinds[bound.Type], Nullable: true})
	}
	for _, row := range rows {
		cells := []*string{}
		for _, bound := range row {
			cells = append(cells, bound.Value)
		}
		values = append(values, cells)
	}
	return batch(fields, values)
}

func batch(fields []arrow.Field, rows [][]*string) (arrow.RecordBatch, error) {
	builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer builder.Release()
	for _, row := range rows {
		for place, value := range row {
			if value == nil {
				builder.Field(place).AppendNull()
			} else if binary, ok := builder.Field(place).(*array.BinaryBuilder); ok && fields[place].Type.ID() == arrow.BINARY {
				bytes, err := hex.DecodeString(*value)
				if err != nil {
					return nil, err
				}
				binary.Append(bytes)
			} else if err := builder.Field(place).AppendValueFromString(*value); err != nil {
				return nil, err
			}
		}
	}
	return builder.NewRecordBatch(), nil
}

func (a *adbcAdapter) browse() (browsed, error) {
	found := browsed{}
	reader, err := a.connection.GetObjects(background, adbc.ObjectDepthColumns, nil, nil, nil, nil, nil)
	if err != nil {
		return found, err
	}
	defer reader.Release()
	type column struct {
		Name string `json:"column_name"`
	}
	type relation struct {
		Name    string   `json:"table_name"`
		Columns []column `json:"table_columns"`
	}
	type schema struct {
		Name   string     `json:"db_schema_name"`
		Tables []relation `json:"db_schema_tables"`
	}
	type catalog struct {
		Name    string   `json:"catalog_name"`
		Schemas []schema `json:"catalog_db_schemas"`
	}
	for reader.Next() {
		text, err := reader.RecordBatch().MarshalJSON()
		if err != nil {
			return found, err
		}
		var catalogs []catalog
		if err := json.Unmarshal(text, &catalogs); err != nil {
			return found, err
		}
		for _, c := range catalogs {
			found.Catalogs = append(found.Catalogs, c.Name)
			for _, s := range c.Schemas {
				found.Schemas = append(found.Schemas, s.Name)
				for _, t := range s.Tables {
					found.Tables = append(found.Tables, []string{s.Name, t.Name})
					for _, column := range t.Columns {
						found.Columns = append(found.Columns, []string{s.Name, t.Name, column.Name})
					}
				}
			}
		}
	}
	return found, reader.Err()
}

func (a *adbcAdapter) option(name, value string) error {
	return a.connection.(adbc.PostInitOptions).SetOption(driver.OptionSessionOptionPrefix+name, value)
}

func (a *adbcAdapter) upload(asked request) error {
	fields, rows := []arrow.Field{}, [][]*string{}
	for _, column := range asked.Columns {
		fields = append(fields, arrow.Field{Name: column[0], Type: kinds[column[1]], Nullable: true})
	}
	if err := json.Unmarshal(asked.Rows, &rows); err != nil {
		return err
	}
	bound, err := batch(fields, rows)
	if err != nil {
		return err
	}
	defer bound.Release()
	statement, err := a.connection.NewStatement()
	if err != nil {
		return err
	}
	defer statement.Close()
	for key, value := range map[string]string{
		adbc.OptionKeyIngestTargetTable: asked.Name, adbc.OptionKeyIngestMode: adbc.OptionValueIngestModeCreate,
		adbc.OptionValueIngestTemporary: adbc.OptionValueEnabled,
	} {
		if err := statement.SetOption(key, value); err != nil {
			return notOffered("uploads came after this version of the Go module: " + err.Error())
		}
	}
	if err := statement.Bind(background, bound); err != nil {
		return err
	}
	_, err = statement.ExecuteUpdate(background)
	return err
}

func (a *adbcAdapter) cancel(sql string, after float64) (float64, error) {
	return cancelling(after, func(ctx context.Context) error {
		return a.each(ctx, sql, nil, func(arrow.RecordBatch) {})
	})
}

// cancelling is the seconds from the end of `run`'s context, `after` seconds from now, to the end of `run`, which must fail.
func cancelling(after float64, run func(context.Context) error) (float64, error) {
	ctx, cancel := context.WithCancel(background)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	time.Sleep(time.Duration(after * float64(time.Second)))
	began := time.Now()
	cancel()
	if err := <-done; err == nil {
		return 0, errors.New("the statement went on after it was cancelled")
	}
	return time.Since(began).Seconds(), nil
}
