package main

import (
	"fmt"
	"os/exec"
	"strings"
)

// contestant does the work in one way.
type contestant struct {
	name   string
	schema string // where its tables are
	peer   bool   // somebody else: ratios are to the fastest of them
	chain  func(round int) (chain, error)
}

// contest is a piece of work and those who do it.
type contest struct {
	title       string
	rows        int64
	prepare     []string                     // statements, once
	reset       func(schema string) []string // statements before each run
	expected    string                       // digest query of what should be there
	actual      func(schema string) string   // digest query of what is there
	contestants []contestant
	connections bool // counted while the node runs
}

// psqlArgs are those of every psql: no settings of the user's, stop at the first error.
func psqlArgs(url string, commands ...string) []string {
	out := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url}
	for _, c := range commands {
		out = append(out, "-c", c)
	}
	return out
}

// pipe is a peer: COPY out of the source into psql with some commands.
func (b *bed) pipe(name, table string, commands func(schema string) []string) contestant {
	c := contestant{name: name, schema: "peer_" + strings.ReplaceAll(name, " ", "_"), peer: true}
	c.chain = func(int) (chain, error) {
		out := "COPY " + sourceSchema + "." + table + " TO STDOUT (FORMAT binary)"
		return chain{
			exec.Command(b.psql, psqlArgs(b.url(), out)...),
			exec.Command(b.psql, psqlArgs(b.url(), commands(c.schema)...)...),
		}, nil
	}
	return c
}

// us is rapidbyte-node.
func (b *bed) us(d document) contestant {
	c := contestant{name: "rapidbyte-node", schema: "ours"}
	c.chain = func(round int) (chain, error) {
		path, err := b.write(d, c.schema, round)
		if err != nil {
			return nil, err
		}
		return chain{exec.Command(b.node, "run", "--quiet", path)}, nil
	}
	return c
}

// likeSource are statements for an empty table of the shape of the source's.
func likeSource(table string) func(schema string) []string {
	return func(schema string) []string {
		return []string{
			fmt.Sprintf("DROP TABLE IF EXISTS %s.%s", schema, table),
			fmt.Sprintf("CREATE TABLE %s.%s (LIKE %s.%s INCLUDING ALL)", schema, table, sourceSchema, table),
		}
	}
}

// tableOf names the table of a contestant.
func tableOf(table string) func(schema string) string {
	return func(schema string) string { return digest(schema + "." + table) }
}

func (b *bed) appendContest(o options) contest {
	w := o.table
	return contest{
		title: fmt.Sprintf("append, %s", w.name), rows: o.rows,
		prepare: w.create(o.rows, false), reset: likeSource(w.name),
		expected: digest(sourceSchema + "." + w.name), actual: tableOf(w.name),
		contestants: []contestant{
			b.pipe("psql pipe", w.name, func(schema string) []string {
				return []string{"COPY " + schema + "." + w.name + " FROM STDIN (FORMAT binary)"}
			}),
			b.us(document{streams: w.name, mode: "append", tasks: o.tasks}),
		},
	}
}

// upsertContest uses the columns of the narrow table.
func (b *bed) upsertContest(o options) contest {
	w := o.table
	const temp = "CREATE TEMPORARY TABLE staged (LIKE bench.narrow)"
	const changed = "(t.k, t.v, t.ts, t.name) IS DISTINCT FROM "
	const set = "SET k = %[1]s.k, v = %[1]s.v, ts = %[1]s.ts, name = %[1]s.name"
	staged := func(name, statement string) contestant {
		return b.pipe(name, w.name, func(schema string) []string {
			return []string{"BEGIN", temp, "COPY staged FROM STDIN (FORMAT binary)", "ANALYZE staged", fmt.Sprintf(statement, schema+"."+w.name), "COMMIT"}
		})
	}
	return contest{
		title: fmt.Sprintf("upsert, %s, %s known", w.name, o.match), rows: o.rows,
		prepare: append(w.create(o.rows, true), w.base(o.rows, o.match)...),
		reset: func(schema string) []string {
			t := schema + "." + w.name
			return append(likeSource(w.name)(schema), "INSERT INTO "+t+" SELECT * FROM "+baseSchema+"."+w.name, "VACUUM (ANALYZE) "+t)
		},
		expected: digest(w.upserted()), actual: tableOf(w.name),
		contestants: []contestant{
			staged("merge", "MERGE INTO %s t USING staged s ON t.id = s.id WHEN MATCHED AND "+changed+"(s.k, s.v, s.ts, s.name) THEN UPDATE "+
				fmt.Sprintf(set, "s")+" WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.k, s.v, s.ts, s.name)"),
			staged("on conflict", "INSERT INTO %s AS t SELECT * FROM staged ON CONFLICT (id) DO UPDATE "+fmt.Sprintf(set, "excluded")+
				" WHERE "+changed+"(excluded.k, excluded.v, excluded.ts, excluded.name)"),
			b.us(document{streams: w.name, mode: "upsert", tasks: o.tasks}),
		},
	}
}

func (b *bed) replaceContest(o options) contest {
	w := o.table
	byHand := func(schema string) []string {
		next := schema + ".next"
		return []string{
			"BEGIN", "CREATE TABLE " + next + " (LIKE " + sourceSchema + "." + w.name + ")", "COPY " + next + " FROM STDIN (FORMAT binary)",
			"ALTER TABLE " + next + " ADD PRIMARY KEY (id)", "DROP TABLE " + schema + "." + w.name, "ALTER TABLE " + next + " RENAME TO " + w.name, "COMMIT",
		}
	}
	return contest{
		title: fmt.Sprintf("replace, %s with a primary key", w.name), rows: o.rows,
		prepare: w.create(o.rows, true), reset: likeSource(w.name),
		expected: digest(sourceSchema + "." + w.name), actual: tableOf(w.name),
		contestants: []contestant{
			b.pipe("by hand", w.name, byHand),
			b.us(document{streams: w.name, mode: "replace", tasks: o.tasks}),
		},
	}
}

func (b *bed) startContest(o options) contest {
	o.table, o.rows = workloads[0], 10
	c := b.appendContest(o)
	c.title = "start-up: ten rows"
	return c
}

func (b *bed) tablesContest(o options) contest {
	n := int(o.rows / 100)
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("SELECT * FROM %%[1]s.t%04d", i)
	}
	union := "(" + strings.Join(all, " UNION ALL ") + ")"
	return contest{
		title: fmt.Sprintf("append, %d tables of 100 rows", n), rows: o.rows, prepare: manyTables(n),
		reset: func(string) []string {
			return []string{"DROP SCHEMA IF EXISTS ours CASCADE", "CREATE SCHEMA ours"}
		},
		expected:    fmt.Sprintf(digest(union), sourceSchema),
		actual:      func(schema string) string { return fmt.Sprintf(digest(union), schema) },
		connections: true,
		contestants: []contestant{b.us(document{streams: sourceSchema + ".*", mode: "append", tasks: o.tasks})},
	}
}
