package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
)

// rawMin is the size of a batch that is sent by itself: a write to the server is no larger
// than that.
const rawMin = 256 << 10

// versionEndless is the first server that knows infinite intervals.
const versionEndless = 17

// rawColumn is a column of the stream and what the table has for it.
type rawColumn struct {
	name     string
	want     *codec.Type
	has      *codec.Type // nil: the table has none of that name
	computed bool        // by the table
}

// refusesRaw says why rows in format cannot be written as they are; empty: they can. They
// must be exactly those that an Encoder would write.
func (g goal) refusesRaw(format string, columns []rawColumn, version int) string {
	switch p := g.policy; {
	case p.OnDataError == connectors.DataSkip, p.OnDataError == connectors.DataDLQ:
		return "on_data_error " + string(p.OnDataError) + " needs the values of a row that is refused"
	case p.Metadata:
		return "metadata_columns adds values to each row"
	case g.cfg.LoadMethod == LoadInsert:
		return "load_method insert sends values, not rows"
	}
	cols := make([]codec.Column, len(columns))
	for i, c := range columns {
		cols[i] = codec.Column{Name: c.name, Type: c.want}
		switch {
		case c.computed:
			return fmt.Sprintf("column %s is computed by the table", c.name)
		case c.has == nil:
			return fmt.Sprintf("the table has no column %s", c.name)
		case version < 14 && c.want.HasNumeric(): // and would not know an infinite one of a newer server
			return fmt.Sprintf("column %s is numeric, and the server is older than version 14", c.name)
		}
		if why := codec.RawDiffers(c.want, c.has); why != "" {
			return fmt.Sprintf("column %s of type %s %s", c.name, c.want.SQL, why)
		}
	}
	if own, _ := codec.RawFormat(cols, false); own == format {
		return ""
	}
	if own, _ := codec.RawFormat(cols, true); own != format {
		return "the columns of the stream are not as they were read"
	}
	if i := slices.IndexFunc(cols, func(c codec.Column) bool { return c.Type.HasInterval() }); version < versionEndless {
		return fmt.Sprintf("column %s is an interval, and the server is older than version %d, the source is not", cols[i].Name, versionEndless)
	}
	return ""
}

// rawColumns compares the stream with what is written. It is empty when the stream has
// types that no column can have.
func (l *layout) rawColumns(g goal) []rawColumn {
	var out []rawColumn
	for i, f := range g.stream.Schema.Fields() {
		want, err := codec.TypeOf(f)
		if err != nil {
			return nil
		}
		c := rawColumn{name: f.Name, want: want}
		if j := slices.IndexFunc(l.columns, func(c layoutColumn) bool { return c.field == i }); j >= 0 {
			c.has = l.columns[j].typ
		}
		c.computed = slices.Contains(l.computed, f.Name)
		out = append(out, c)
	}
	return out
}

// AcceptsRaw implements connectors.RawWriter.
func (d *Destination) AcceptsRaw(ctx context.Context, loads []connectors.Load) ([]string, error) {
	out := make([]string, len(loads))
	err := d.inspect(ctx, "look at the targets", func(conn *pgx.Conn) error {
		for i, l := range loads {
			for _, sp := range l.Streams {
				g := d.goal("", l.Mode, sp, l.ID.Number)
				p, err := g.fitter(ctx, conn)
				if err != nil {
					return err
				}
				if len(p.problems) == 0 && len(l.Parts) > 0 && out[i] == "" { // a problem is told by Check
					out[i] = g.refusesRaw(l.Parts[0].Raw, p.rawColumns(), serverVersion(conn))
				}
			}
		}
		return nil
	})
	return out, err
}

// rawColumns compares the stream with the table as Begin makes it.
func (p *fitter) rawColumns() []rawColumn {
	var out []rawColumn
	for _, s := range p.slots {
		if s.meta != "" {
			continue
		}
		c := rawColumn{name: s.name, want: s.want}
		switch {
		case s.has != nil:
			c.has, c.computed = s.has.Type, s.has.generated
		case p.table == nil, p.policy.NewColumn == connectors.ColumnAdd:
			c.has = s.want
		}
		out = append(out, c)
	}
	return out
}

// TakesRaw implements connectors.RawTaker.
func (w *Writer) TakesRaw() string {
	for _, k := range w.sinks {
		if k.whyNot != "" {
			return k.whyNot
		}
	}
	return ""
}

// writeRaw takes rows as they are; at is the first of them since the last commit, from 0.
func (k *sink) writeRaw(ctx context.Context, rows messages.RawRows, at int64) error {
	if err := k.begin(ctx, at); err != nil {
		return err
	}
	k.sent += rows.Count
	k.flush.saw(rows.Count, int64(len(rows.Data)))
	frame, ours := rows.Buffer.(*codec.Frame)
	if !ours || len(rows.Data) < rawMin || k.flush.pinned() {
		k.buf = append(k.buf0(), rows.Data...)
		if int64(len(k.buf)) < k.flush.bytes() {
			return nil
		}
		return k.send(ctx)
	}
	if k.copy == nil {
		k.buf = k.buf0()
	}
	if err := k.send(ctx); err != nil { // what came before, or the header
		return err
	}
	return k.sendMessage(ctx, frame.Message(wire.Headroom))
}
