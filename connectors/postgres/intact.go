package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// intact finds tables of a begun load that rows were committed to and that are not the
// same any more.
func (s *Session) intact(ctx context.Context, conn *pgx.Conn, l storedLoad) error {
	for _, st := range l.streams {
		var oid uint32
		if err := conn.QueryRow(ctx, "SELECT coalesce(to_regclass($1)::oid, 0)", s.writtenTo(st).sql()).Scan(&oid); err != nil {
			return err
		}
		if oid == st.OID {
			continue
		}
		committed, err := s.committed(ctx, conn, l, st.Stream)
		if err != nil {
			return err
		}
		if committed {
			return lostTarget(st.Stream, s.writtenTo(st).String())
		}
	}
	return nil
}

// writtenTo is the table that a stream's rows are committed to.
func (s *Session) writtenTo(st storedStream) qname {
	if st.Stage != "" {
		return qname{s.d.cfg.Schema, st.Stage}
	}
	return qname{s.d.cfg.Schema, st.Target}
}

// committed reports whether some part of a load has committed rows of a stream.
func (s *Session) committed(ctx context.Context, conn *pgx.Conn, l storedLoad, stream messages.StreamID) (bool, error) {
	found, err := readReceipts(ctx, conn, s.id, "", "")
	for i, r := range found.all {
		if r.LoadID() == l.status.ID && r.Version.Commit > 0 && slices.Contains(found.parts[i].Streams, stream) {
			return true, err
		}
	}
	return false, err
}

// accept makes another table that of a stream, as long as nothing was committed to the
// one before.
func (s *Session) accept(ctx context.Context, conn *pgx.Conn, l storedLoad, stream messages.StreamID, lay *layout) error {
	committed, err := s.committed(ctx, conn, l, stream)
	if err != nil {
		return err
	}
	if committed {
		return lostTarget(stream, lay.table)
	}
	for i := range l.streams {
		if l.streams[i].Stream == stream {
			l.streams[i].OID = lay.oid
		}
	}
	streams, err := json.Marshal(l.streams)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "UPDATE _rapidbyte.load SET streams = $3::text::json WHERE pipeline_id = $1 AND name = $2", s.id, l.status.ID.Name, string(streams))
	return err
}

// sameTables is a query that says whether the tables of w are those that it began with;
// inside of a transaction that has written to them they stay so.
func (w *Writer) sameTables() string {
	same := make([]string, len(w.sinks))
	for i, k := range w.sinks {
		name := query.Literal(query.Qualified(k.lay.schema, k.lay.table))
		same[i] = fmt.Sprintf("coalesce(to_regclass(%s)::oid, 0) = %d", name, k.lay.oid)
	}
	return "SELECT " + strings.Join(same, ", ")
}

// moved names the first table that is another one, by the answer to sameTables.
func (w *Writer) moved(answer [][]byte) error {
	for i, k := range w.sinks {
		if string(answer[i]) != "t" {
			return lostTarget(k.g.stream.Stream, k.lay.table)
		}
	}
	return nil
}
