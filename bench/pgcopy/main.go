package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// options are what the flags say.
type options struct {
	table     workload
	rows      int64
	rounds    int
	tasks     int
	mode      string
	match     known
	competing float64 // seconds
	retries   int
	program   string
}

func main() {
	if err := mainErr(); err != nil {
		fmt.Fprintln(os.Stderr, "pgcopy:", err)
		os.Exit(1)
	}
}

func mainErr() error {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := newBed(o.program)
	if b != nil {
		defer b.close()
	}
	if err != nil {
		return err
	}
	c := b.contest(o)
	rounds, err := b.measure(c, o)
	if err != nil {
		return err
	}
	version, err := b.query("SHOW server_version")
	if err != nil {
		return err
	}
	return report(os.Stdout, c, o, rounds, version[0][0])
}

// modes are the values of -mode, with the rows of each.
var modes = map[string]int64{"append": 0, "upsert": 1_000_000, "replace": 1_000_000, "start": 10, "tables": 100_000}

func parse(args []string) (options, error) {
	var o options
	var table, match string
	f := flag.NewFlagSet("pgcopy", flag.ContinueOnError)
	f.StringVar(&o.mode, "mode", "append", "append, upsert, replace, start or tables")
	f.StringVar(&table, "workload", "narrow", "narrow, wide, flights or rdlt; upsert takes narrow, replace one with an id")
	f.Int64Var(&o.rows, "rows", 0, "rows to copy; 0 is what suits the mode and workload")
	f.IntVar(&o.rounds, "rounds", 5, "rounds that count; one more warms up")
	f.IntVar(&o.tasks, "tasks", 1, "tasks of the pipeline at a time")
	f.StringVar(&match, "match", "50", "percent of the rows that an upsert finds with other values, or `unchanged`")
	f.Float64Var(&o.competing, "competing", 0.3, "seconds of CPU that something else may take from a run")
	f.IntVar(&o.retries, "retries", 10, "disturbed rounds that are run again, in all")
	f.StringVar(&o.program, "program", "", "path of a rapidbyte-node; empty: build one")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	rows, ok := modes[o.mode]
	if !ok {
		return o, fmt.Errorf("found -mode %q, expected append, upsert, replace, start or tables", o.mode)
	}
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == table })
	if i < 0 {
		return o, fmt.Errorf("found -workload %q, expected narrow, wide, flights or rdlt", table)
	}
	o.table, o.match = workloads[i], known(match)
	if percent, err := strconv.Atoi(match); o.match != unchanged && (err != nil || percent < 0 || percent > 100) {
		return o, fmt.Errorf("found -match %q, expected 0 to 100, or unchanged", match)
	}
	if o.mode == "upsert" && table != "narrow" || o.mode == "replace" && table == "flights" {
		return o, fmt.Errorf("-mode %s does not take -workload %s", o.mode, table)
	}
	if o.rounds < 1 || o.tasks < 1 || o.rows < 0 {
		return o, errors.New("-rounds and -tasks are at least 1, -rows is not negative")
	}
	if o.rows == 0 {
		o.rows = rows
	}
	if o.rows == 0 {
		o.rows = o.table.rows
	}
	return o, nil
}

func (b *bed) contest(o options) contest {
	switch o.mode {
	case "upsert":
		return b.upsertContest(o)
	case "replace":
		return b.replaceContest(o)
	case "start":
		return b.startContest(o)
	case "tables":
		return b.tablesContest(o)
	}
	return b.appendContest(o)
}
