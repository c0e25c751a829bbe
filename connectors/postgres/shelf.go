package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
)

// shelf is what the catalogue has on the tables and types of many goals, read at once. What
// it does not have, or what a statement may have changed since, is asked for. The nil shelf
// has nothing.
type shelf struct {
	relations map[qname]*relation // nil: there is none of that name
	taken     map[qname]string    // what else has the name of a target; "": nothing
	book      *typeBook           // nil: not read, or not true any more
}

// indexMark is in the names that the server gives to the indexes of primary keys: a table of
// such a name may find it taken by the index of a table that was made a moment before.
const indexMark = "_pkey"

func readShelf(ctx context.Context, conn *pgx.Conn, goals []goal) (*shelf, error) {
	if len(goals) < 2 {
		return nil, nil //nolint:nilnil // documented
	}
	s := &shelf{relations: map[qname]*relation{}, taken: map[qname]string{}}
	var names []qname
	var schemas, targets []string
	b := newTypeBook(goals[0].cfg.Schema)
	for _, g := range goals {
		if strings.Contains(g.stream.Target, indexMark) || len(g.sound()) > 0 {
			continue
		}
		names = append(names, g.target(), g.stage())
		schemas, targets = append(schemas, g.cfg.Schema), append(targets, g.stream.Target)
		slots, _ := g.slots(nil) // what is wrong with them is found again
		for _, one := range slots {
			b.collect(one.want, 0)
		}
	}
	found, err := readRelations(ctx, conn, names)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		s.relations[n] = found[n]
	}
	for i := range targets {
		s.taken[qname{schemas[i], targets[i]}] = ""
	}
	rows, err := conn.Query(ctx, holdersSQL, schemas, targets)
	if err != nil {
		return nil, err
	}
	var n qname
	var kind string
	if _, err := pgx.ForEachRow(rows, []any{&n.schema, &n.name, &kind}, func() error { s.taken[n] = kind; return nil }); err != nil {
		return nil, err
	}
	if err := b.look(ctx, conn); err != nil {
		return nil, err
	}
	s.book = b
	return s, nil
}

// read returns the relations that exist.
func (s *shelf) read(ctx context.Context, conn *pgx.Conn, names ...qname) (map[qname]*relation, error) {
	if s == nil {
		return readRelations(ctx, conn, names)
	}
	out := map[qname]*relation{}
	for _, n := range names {
		r, ok := s.relations[n]
		if !ok {
			return readRelations(ctx, conn, names)
		}
		if r != nil {
			out[n] = r
		}
	}
	return out, nil
}

const holdersSQL = `SELECT n.nspname::text, c.relname::text, CASE c.relkind WHEN 'i' THEN 'an index' WHEN 'I' THEN 'an index' WHEN 'S' THEN 'a sequence' ELSE 'a composite type' END
	FROM unnest($1::text[], $2::text[]) AS w(schema, name)
	JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
	JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
	WHERE c.relkind NOT IN ('r', 'p', 'v', 'm', 'f')`

// holder says what has the name of a table that is not there; "": nothing.
func (s *shelf) holder(ctx context.Context, conn *pgx.Conn, n qname) (kind string, err error) {
	if s != nil {
		if kind, ok := s.taken[n]; ok {
			return kind, nil
		}
	}
	var schema, name string
	err = conn.QueryRow(ctx, holdersSQL, []string{n.schema}, []string{n.name}).Scan(&schema, &name, &kind)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return kind, err
}

// types fills b, which has collected what it needs, and reports whether that is all.
func (s *shelf) types(b *typeBook) bool {
	if s == nil || s.book == nil {
		return false
	}
	for l := range b.found {
		if _, ok := s.book.found[l]; !ok {
			return false
		}
	}
	b.schemaExists, b.found, b.defs = s.book.schemaExists, s.book.found, s.book.defs // nobody changes them any more
	return true
}

// changed takes off the shelf what the plan of g, carried out, may have changed.
func (s *shelf) changed(g goal, p *planned) {
	if s == nil || len(p.statements) == 0 {
		return
	}
	if p.alters {
		*s = shelf{}
		return
	}
	for _, n := range []qname{g.target(), g.stage()} {
		delete(s.relations, n)
		delete(s.taken, n)
	}
	if s.book != nil {
		s.book.schemaExists = true // a plan with statements begins by making it
	}
}
