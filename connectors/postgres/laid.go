package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// laid is a layout that Begin has read, for the writers of its load.
type laid struct {
	load messages.LoadID
	into qname
	lay  *layout
	mark string // of the table when it was read; empty: nobody can tell whether it still holds
}

// laidMost bounds the columns of the layouts that are kept, some 120 bytes each. The tables
// of more are read again.
const laidMost = 100_000

// unlay forgets the layout of a stream. The caller holds mu.
func (s *Session) unlay(id messages.StreamID) {
	if l, ok := s.laid[id]; ok {
		s.columns -= len(l.lay.columns)
		delete(s.laid, id)
	}
}

// unlayAll forgets the layouts of loads that are finished.
func (s *Session) unlayAll(loads []storedLoad) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range loads {
		for _, st := range l.streams {
			s.unlay(st.Stream)
		}
	}
}

// remember keeps how loads were begun. made are those that were new.
func (s *Session) remember(loads []connectors.Load, made []*beginning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range loads {
		s.begun[l.ID.Name] = l.Mode
		for _, sp := range l.Streams {
			s.unlay(sp.Stream)
		}
	}
	for _, b := range made {
		for i, g := range b.goals {
			if n := len(b.lays[i].columns); b.marks[i] != "" && s.columns+n <= laidMost {
				s.columns += n
				s.laid[g.stream.Stream] = laid{load: b.load.ID, into: g.into(b.stages[i]), lay: b.lays[i], mark: b.marks[i]}
			}
		}
	}
}

// layouts are what is known of the tables of one part.
type layouts map[messages.StreamID]laid

func (s *Session) laidFor(p connectors.Part) layouts {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := layouts{}
	for _, id := range p.Streams {
		if l, ok := s.laid[id]; ok && l.load == p.Load {
			out[id] = l
		}
	}
	return out
}

// of returns the layout of a stream; nil: it is not known.
func (k layouts) of(id messages.StreamID) *layout { return k[id].lay }

// query asks for the marks of the tables, if any are known.
func (k layouts) query() []*pgx.QueuedQuery {
	if len(k) == 0 {
		return nil
	}
	names := make([]qname, 0, len(k))
	for _, l := range k {
		names = append(names, l.into)
	}
	return []*pgx.QueuedQuery{{SQL: marksSQL, Arguments: markArguments(names)}}
}

// check reads the answer and forgets the layouts of tables that have changed.
func (k layouts) check(got pgx.BatchResults) error {
	if len(k) == 0 {
		return nil
	}
	marks, err := next(got, collectMarks)
	if err != nil {
		return err
	}
	for id, l := range k {
		if marks[l.into] != l.mark {
			delete(k, id)
		}
	}
	return nil
}

// marksSQL returns, for tables, a text that changes with everything that a layout is made
// of: the versions of the rows that the catalogue has on them. There is none for a table with
// types that have more to them than their name.
const marksSQL = `
SELECT n.nspname::text, c.relname::text, concat_ws(' ', c.oid, c.xmin,
	(SELECT string_agg(a.attnum || ':' || a.xmin::text, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), '/',
	(SELECT string_agg(i.indexrelid || ':' || i.xmin::text, ',' ORDER BY i.indexrelid) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), '/',
	(SELECT string_agg(t.oid || ':' || t.xmin::text, ',' ORDER BY t.oid) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid))
FROM unnest($1::text[], $2::text[]) AS w(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
WHERE NOT EXISTS (
	SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
	WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (y.typtype <> 'b' OR y.typnamespace <> 'pg_catalog'::regnamespace))`

func markArguments(names []qname) []any {
	schemas, tables := make([]string, len(names)), make([]string, len(names))
	for i, n := range names {
		schemas[i], tables[i] = n.schema, n.name
	}
	return []any{schemas, tables}
}

func readMarks(ctx context.Context, conn *pgx.Conn, names []qname) (map[qname]string, error) {
	rows, err := conn.Query(ctx, marksSQL, markArguments(names)...)
	if err != nil {
		return nil, err
	}
	return collectMarks(rows)
}

func collectMarks(rows pgx.Rows) (map[qname]string, error) {
	out := map[qname]string{}
	var n qname
	var mark string
	_, err := pgx.ForEachRow(rows, []any{&n.schema, &n.name, &mark}, func() error { out[n] = mark; return nil })
	return out, err
}
