// Command landed prints what the flights example has moved: the tables of the DuckDB
// file, and of the Parquet folder the files that its manifest names, which is how any
// reader should find them.
package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	_ "github.com/duckdb/duckdb-go/v2"

	"rapidbyte.io/node/connectors/file"
)

const out = "examples/flights/out"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "landed:", err)
		os.Exit(1)
	}
}

func run() error {
	db, err := sql.Open("duckdb", filepath.Join(out, "flights.duckdb")+"?access_mode=read_only")
	if err != nil {
		return err
	}
	defer db.Close()
	fmt.Println("DuckDB file " + filepath.Join(out, "flights.duckdb"))
	for _, table := range []string{"flights", "routes", "delays"} {
		if err := show(db, table, table); err != nil {
			return err
		}
	}
	folder := filepath.Join(out, "parquet")
	landed, err := file.ReadCommitted(folder, "flights_parquet")
	if err != nil {
		return err
	}
	fmt.Println("\nParquet files below " + folder + ", as the manifest names them")
	for _, target := range []string{"routes", "airports"} {
		var files []string
		for _, path := range landed.Files(target) {
			files = append(files, "'"+strings.ReplaceAll(path, "'", "''")+"'")
		}
		if err := show(db, target, "read_parquet(["+strings.Join(files, ", ")+"])"); err != nil {
			return err
		}
	}
	return nil
}

// show prints the number of rows and the first three.
func show(db *sql.DB, name, from string) error {
	var n int64
	if err := db.QueryRow("SELECT count(*) FROM " + from).Scan(&n); err != nil {
		return fmt.Errorf("count %s: %w", name, err)
	}
	fmt.Printf("\n  %s: %d rows\n", name, n)
	rows, err := db.Query("SELECT * FROM " + from + " LIMIT 3")
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "    "+strings.Join(columns, "\t"))
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		texts := make([]string, len(values))
		for i, v := range values {
			texts[i] = fmt.Sprint(v)
		}
		fmt.Fprintln(w, "    "+strings.Join(texts, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return rows.Err()
}
