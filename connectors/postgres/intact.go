package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// intact finds tables of a begun load that rows were committed to and that are not the
// same any more.
func (s *Session) intact(ctx context.Context, conn *pgx.Conn, l storedLoad) error {
	book, err := bookOID(ctx, conn)
	if err != nil {
		return err
	}
	for _, st := range l.streams {
		var oid uint32
		if err := conn.QueryRow(ctx, "SELECT coalesce(to_regclass($1)::oid, 0)", s.writtenTo(st).sql()).Scan(&oid); err != nil {
			return err
		}
		if oid == st.OID {
			continue
		}
		r, err := s.committed(ctx, conn, l, st.Stream)
		if err != nil {
			return err
		}
		if r != nil && oid != 0 && st.Book != book {
			return restoredTarget(st.Stream, *r, s.writtenTo(st).String(), st.OID, oid)
		}
		if r != nil {
			return lostTarget(st.Stream, *r, s.writtenTo(st).String(), st.OID, oid)
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

// committed returns a receipt of a load by which rows of a stream are committed; nil: none
// are.
func (s *Session) committed(ctx context.Context, conn *pgx.Conn, l storedLoad, stream messages.StreamID) (*messages.Receipt, error) {
	found, err := readReceipts(ctx, conn, s.id, "")
	for i, r := range found.all {
		if r.LoadID() == l.status.ID && r.Version.Commit > 0 && slices.Contains(found.parts[i].Streams, stream) {
			return &r, err
		}
	}
	return nil, err
}

// lostTarget says that the table behind receipts is gone (rule 8 of recovery: the
// destination lost data). was and is are its OID; 0: there is no such table.
func lostTarget(stream messages.StreamID, r messages.Receipt, table string, was, is uint32) *connectors.Error {
	why := fmt.Errorf("the destination has task %s at %s, in table %s with OID %d, and there is no such table any more: it was dropped or renamed", r.Part, r.Reached(), table, was)
	if is != 0 {
		why = fmt.Errorf("the destination has task %s at %s, in table %s with OID %d, and that name has a table with OID %d: it was dropped and made again, or another one renamed",
			r.Part, r.Reached(), table, was, is)
	}
	return &connectors.Error{
		Op: "continue the load", Kind: connectors.KindConfig, Code: messages.CodeStateAhead,
		Place: messages.Place{Stage: connectors.StageDestination, Stream: stream, Part: r.Part, Position: r.Position.String()}, Err: why,
	}
}

// restoredTarget says that bookkeeping and table were both made again since: from a dump,
// if the operator says so.
func restoredTarget(stream messages.StreamID, r messages.Receipt, table string, was, is uint32) error {
	e := lostTarget(stream, r, table, was, is)
	e.Err = fmt.Errorf("the destination has task %s at %s, in table %s with OID %d, and that name has a table with OID %d: bookkeeping and table were made again, as a dump that is restored does",
		r.Part, r.Reached(), table, was, is)
	e.Next = "If the whole destination was restored, take over what it has: " + messages.Command("state", "rebuild", messages.Document) + "."
	return e
}

// adoptTables takes the tables that stand under their names for those that receipts speak
// of, where the bookkeeping was restored: the operator says that all of it was. Those of
// a bookkeeping that is still the same must be the same too.
func (s *Session) adoptTables(ctx context.Context, conn *pgx.Conn) error {
	book, err := bookOID(ctx, conn)
	if err != nil {
		return err
	}
	loads, err := readLoads(ctx, conn, s.id)
	if err != nil {
		return err
	}
	for _, l := range loads {
		changed := false
		for i, st := range l.streams {
			if st.Book == book {
				continue
			}
			var oid uint32
			if err := conn.QueryRow(ctx, "SELECT coalesce(to_regclass($1)::oid, 0)", s.writtenTo(st).sql()).Scan(&oid); err != nil {
				return err
			}
			if oid != 0 {
				l.streams[i].OID, l.streams[i].Book, changed = oid, book, true
			}
		}
		if !changed {
			continue
		}
		if err := s.writeStreams(ctx, conn, l); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) writeStreams(ctx context.Context, conn *pgx.Conn, l storedLoad) error {
	streams, err := json.Marshal(l.streams)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "UPDATE _rapidbyte.load SET streams = $3::text::json WHERE pipeline_id = $1 AND name = $2", s.id, l.status.ID.Name, string(streams))
	return err
}

// accept makes another table that of a stream, as long as nothing was committed to the
// one before.
func (s *Session) accept(ctx context.Context, conn *pgx.Conn, l storedLoad, stream messages.StreamID, lay *layout) error {
	r, err := s.committed(ctx, conn, l, stream)
	if err != nil {
		return err
	}
	if r != nil {
		was, _ := l.stream(stream)
		return lostTarget(stream, *r, qname{lay.schema, lay.table}.String(), was.OID, lay.oid)
	}
	book, err := bookOID(ctx, conn)
	if err != nil {
		return err
	}
	for i := range l.streams {
		if l.streams[i].Stream == stream {
			l.streams[i].OID, l.streams[i].Book = lay.oid, book
		}
	}
	return s.writeStreams(ctx, conn, l)
}

// sameTables is a query for the OIDs that the names of w's tables have, and for the types of
// their columns; inside of a transaction that has written to them they stay so.
func (w *Writer) sameTables() string {
	same := make([]string, len(w.sinks))
	for i, k := range w.sinks {
		name := query.Literal(query.Qualified(k.lay.schema, k.lay.table))
		same[i] = fmt.Sprintf("coalesce(to_regclass(%s)::oid, 0), (SELECT json_object_agg(attname, concat(atttypid, ' ', atttypmod) ORDER BY attnum)"+
			" FROM pg_catalog.pg_attribute WHERE attrelid = %d AND attnum > 0 AND NOT attisdropped)", name, k.lay.oid)
	}
	return "SELECT " + strings.Join(same, ", ")
}

// moved names the first table that is another one than w began with, or whose columns have
// other types, by the answer to sameTables.
func (w *Writer) moved(answer [][]byte) error {
	for i, k := range w.sinks {
		is, err := strconv.ParseUint(string(answer[2*i]), 10, 32)
		if err != nil {
			return fmt.Errorf("read an OID: %w", err)
		}
		if uint32(is) != k.lay.oid {
			return lostTarget(k.g.stream.Stream, w.receipt, qname{k.lay.schema, k.lay.table}.String(), k.lay.oid, uint32(is))
		}
		if w.rows.Arrived > 0 {
			if err := k.altered(answer[2*i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// altered finds a column that has another type than the one that its values were written
// for: a server reads eight bytes of one type as eight bytes of another, and rounds what comes
// out of a temporary table. types are those that the columns have, as sameTables asks for them.
func (k *sink) altered(types []byte) error {
	if bytes.Equal(types, k.types) {
		return nil
	}
	var now map[string]string
	if err := json.Unmarshal(types, &now); err != nil {
		return fmt.Errorf("read the types of columns: %w", err)
	}
	for _, c := range k.lay.columns {
		if now[c.name] != fmt.Sprint(c.typ.OID, " ", c.typ.Mod) {
			e := k.place(destError("write to "+k.g.stream.Target, connectors.KindSchema, messages.CodeSchemaType,
				fmt.Errorf("column %s was %s when rows were written for it, and was altered since", c.name, c.typ.SQL)))
			e.Place.Field, e.Next = c.name, nextAltered
			return e
		}
	}
	k.types = bytes.Clone(types)
	return nil
}
