// Two Flight SQL clients in Go: `adbc`, ADBC's driver by its Go interface, and `sql`, arrow-go's driver for database/sql.
// Requests and answers are those of ../tool.py.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

type parameter struct {
	Type  string  `json:"type"`
	Value *string `json:"value"`
}

type request struct {
	Op         string            `json:"op"`
	Host       string            `json:"host"`
	Port       int               `json:"port"`
	Headers    map[string]string `json:"headers"`
	User       *string           `json:"user"`
	Password   *string           `json:"password"`
	SQL        string            `json:"sql"`
	Parameters []parameter       `json:"parameters"`
	Name       string            `json:"name"`
	Value      string            `json:"value"`
	Columns    [][2]string       `json:"columns"`
	// Lists of text for an upload, of parameters for an update.
	Rows  json.RawMessage `json:"rows"`
	After float64         `json:"after"`
}

type table struct {
	Columns []string    `json:"columns"`
	Rows    [][]*string `json:"rows"`
}

type drained struct {
	Rows int64              `json:"rows"`
	Sums map[string]float64 `json:"sums"`
}

type browsed struct {
	Catalogs []string   `json:"catalogs"`
	Schemas  []string   `json:"schemas"`
	Tables   [][]string `json:"tables"`
	Columns  [][]string `json:"columns"`
	Keys     [][]string `json:"keys"`
}

type notOffered string

func (why notOffered) Error() string { return string(why) }

type adapter interface {
	connect(request) error
	close() error
	run(sql string) error
	query(sql string, parameters []parameter) (table, error)
	update(sql string, rows [][]parameter) (int64, error)
	drain(sql string) (drained, error)
	browse() (browsed, error)
	option(name, value string) error
	upload(request) error
	cancel(sql string, after float64) (float64, error)
}

func versions(module string) map[string]string {
	found := map[string]string{"go": runtime.Version()}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range build.Deps {
			if dependency.Path == module {
				found[module] = dependency.Version
			}
		}
	}
	return found
}

func do(tool adapter, module string, asked request) (any, error) {
	switch asked.Op {
	case "about":
		return versions(module), nil
	case "connect":
		return nil, tool.connect(asked)
	case "close":
		return nil, tool.close()
	case "run":
		return nil, tool.run(asked.SQL)
	case "query":
		return tool.query(asked.SQL, asked.Parameters)
	case "update":
		var rows [][]parameter
		if err := json.Unmarshal(asked.Rows, &rows); err != nil {
			return nil, err
		}
		return tool.update(asked.SQL, rows)
	case "drain":
		return tool.drain(asked.SQL)
	case "browse":
		return tool.browse()
	case "option":
		return nil, tool.option(asked.Name, asked.Value)
	case "upload":
		return nil, tool.upload(asked)
	case "cancel":
		return tool.cancel(asked.SQL, asked.After)
	}
	return nil, fmt.Errorf("an unknown operation")
}

func main() {
	var tool adapter = &adbcAdapter{}
	module := "github.com/apache/arrow-adbc/go/adbc"
	if os.Args[1] == "sql" {
		tool, module = &sqlAdapter{}, "github.com/apache/arrow-go/v18"
	}
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			panic(err)
		}
		ok, err := do(tool, module, asked)
		var why notOffered
		switch {
		case errors.As(err, &why):
			err = out.Encode(map[string]string{"not_offered": string(why)})
		case err != nil:
			err = out.Encode(map[string]string{"error": err.Error()})
		default:
			err = out.Encode(map[string]any{"ok": ok})
		}
		if err != nil {
			panic(err)
		}
	}
}
