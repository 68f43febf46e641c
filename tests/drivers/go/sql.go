package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
)

type sqlAdapter struct {
	pool       *sql.DB
	connection *sql.Conn
}

func (a *sqlAdapter) connect(asked request) error {
	if err := a.close(); err != nil {
		return err
	}
	who, parts := "", []string{}
	if asked.User != nil {
		who = *asked.User + ":" + *asked.Password + "@"
	}
	for name, value := range asked.Headers {
		parts = append(parts, name+"="+value)
	}
	pool, err := sql.Open("flightsql", fmt.Sprintf("flightsql://%s%s:%d?%s", who, asked.Host, asked.Port, strings.Join(parts, "&")))
	if err != nil {
		return err
	}
	a.pool = pool
	a.connection, err = pool.Conn(background)
	return err
}

func (a *sqlAdapter) close() error {
	if a.pool == nil {
		return nil
	}
	pool := a.pool
	a.pool = nil
	return pool.Close()
}

func (a *sqlAdapter) run(text string) error {
	_, err := a.query(text, nil)
	return err
}

func (a *sqlAdapter) each(ctx context.Context, text string, parameters []parameter, use func([]string, []any)) error {
	bound, err := natives(parameters)
	if err != nil {
		return err
	}
	rows, err := a.connection.QueryContext(ctx, text, bound...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	use(columns, nil)
	values := make([]any, len(columns))
	places := make([]any, len(columns))
	for place := range values {
		places[place] = &values[place]
	}
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			return err
		}
		use(columns, values)
	}
	return rows.Err()
}

func natives(parameters []parameter) ([]any, error) {
	bound := []any{}
	for _, p := range parameters {
		value, err := native(p)
		if err != nil {
			return nil, err
		}
		bound = append(bound, value)
	}
	return bound, nil
}

func native(p parameter) (any, error) {
	if p.Value == nil {
		return nil, nil
	}
	switch p.Type {
	case "int":
		return strconv.ParseInt(*p.Value, 10, 64)
	case "double":
		return strconv.ParseFloat(*p.Value, 64)
	case "timestamp":
		return time.Parse(time.RFC3339, *p.Value)
	case "boolean":
		return strconv.ParseBool(*p.Value)
	case "date":
		return time.Parse(time.DateOnly, *p.Value)
	case "binary":
		return hex.DecodeString(*p.Value)
	}
	return *p.Value, nil
}

func (a *sqlAdapter) query(text string, parameters []parameter) (table, error) {
	found := table{Columns: []string{}, Rows: [][]*string{}}
	err := a.each(background, text, parameters, func(columns []string, values []any) {
		found.Columns = columns
		if values == nil {
			return
		}
		row := []*string{}
		for _, value := range values {
			row = append(row, scanned(value))
		}
		found.Rows = append(found.Rows, row)
	})
	return found, err
}

// update sends one statement for each row: database/sql has no batches.
func (a *sqlAdapter) update(text string, rows [][]parameter) (int64, error) {
	if rows == nil {
		rows = [][]parameter{nil}
	}
	total := int64(0)
	for _, row := range rows {
		bound, err := natives(row)
		if err != nil {
			return 0, err
		}
		result, err := a.connection.ExecContext(background, text, bound...)
		if err != nil {
			return 0, err
		}
		count, err := result.RowsAffected()
		if err != nil {
			return 0, err
		}
		total += count
	}
	return total, nil
}

func scanned(value any) *string {
	var text string
	switch value := value.(type) {
	case nil:
		return nil
	case []byte:
		text = hex.EncodeToString(value)
	case time.Time:
		text = value.UTC().Format(time.RFC3339Nano)
	case time.Duration:
		text = fmt.Sprintf("PT%sS", strconv.FormatFloat(value.Seconds(), 'f', -1, 64))
	case float64:
		text = strconv.FormatFloat(value, 'g', -1, 64)
	case float32:
		text = strconv.FormatFloat(float64(value), 'g', -1, 64)
	default:
		text = fmt.Sprint(value)
	}
	return &text
}

func (a *sqlAdapter) drain(text string) (drained, error) {
	found := drained{Sums: map[string]float64{}}
	err := a.each(background, text, nil, func(columns []string, values []any) {
		if values != nil {
			found.Rows++
		}
		for place, value := range values {
			switch value := value.(type) {
			case int64:
				found.Sums[columns[place]] += float64(value)
			case float64:
				found.Sums[columns[place]] += value
			}
		}
	})
	return found, err
}

func (a *sqlAdapter) browse() (browsed, error) {
	return browsed{}, notOffered("database/sql has no catalog; query information_schema")
}

func (a *sqlAdapter) option(string, string) error {
	return notOffered("database/sql has no session options; write `SET`, or a property into the data source name")
}

func (a *sqlAdapter) upload(request) error {
	return notOffered("database/sql has no upload; make the spine a temporary view")
}

func (a *sqlAdapter) cancel(text string, after float64) (float64, error) {
	return cancelling(after, func(ctx context.Context) error {
		return a.each(ctx, text, nil, func([]string, []any) {})
	})
}
