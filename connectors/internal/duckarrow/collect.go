package duckarrow

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/messages"
)

// ErrRowTooLarge is returned by a Collector for a row above its row limit. Name
// the row and stop.
var ErrRowTooLarge = errors.New("row too large")

// Collector joins DuckDB's small chunks into batches in memory of an allocator.
// A batch ends at the first limit that is reached; a single row above BytesMax
// is a batch of its own. Zero limits do not limit.
type Collector struct {
	Mem         memory.Allocator
	Schema      *arrow.Schema // of the batches; each type has the layout of what DuckDB returns
	RowsMax     int64
	BytesMax    int64 // Arrow footprint
	RowBytesMax int64
	// Emit takes each batch: it moves rec.
	Emit func(ctx context.Context, rec arrow.RecordBatch) error

	pending []arrow.RecordBatch // owned
	rows    int64
	bytes   int64
}

// Add takes a chunk: it moves rec.
func (c *Collector) Add(ctx context.Context, rec arrow.RecordBatch) error {
	defer rec.Release()
	n, bytes := rec.NumRows(), messages.ArrowRows{Record: rec}.Bytes()
	if n == 0 {
		return nil
	}
	if n == 1 && over(bytes, c.RowBytesMax) {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrRowTooLarge, bytes, c.RowBytesMax)
	}
	if n > 1 && (over(n, c.RowsMax) || over(bytes, c.BytesMax) || over(bytes, c.RowBytesMax)) {
		half := n / 2
		if c.RowsMax > 0 {
			half = min(half, c.RowsMax)
		}
		if err := c.Add(ctx, rec.NewSlice(0, half)); err != nil {
			return err
		}
		return c.Add(ctx, rec.NewSlice(half, n))
	}
	if len(c.pending) > 0 && (over(c.rows+n, c.RowsMax) || over(c.bytes+bytes, c.BytesMax)) {
		if err := c.Flush(ctx); err != nil {
			return err
		}
	}
	rec.Retain()
	c.pending = append(c.pending, rec)
	c.rows, c.bytes = c.rows+n, c.bytes+bytes
	return nil
}

func over(n, limit int64) bool { return limit > 0 && n > limit }

// Rows returns how many rows wait for Flush.
func (c *Collector) Rows() int64 { return c.rows }

// Flush emits what waits.
func (c *Collector) Flush(ctx context.Context) error {
	if len(c.pending) == 0 {
		return nil
	}
	rec, err := c.join()
	c.Drop()
	if err != nil {
		return err
	}
	return c.Emit(ctx, rec)
}

// Drop releases what waits. Idempotent.
func (c *Collector) Drop() {
	for _, r := range c.pending {
		r.Release()
	}
	clear(c.pending)
	c.pending, c.rows, c.bytes = c.pending[:0], 0, 0
}

func (c *Collector) join() (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, c.Schema.NumFields())
	defer func() {
		for _, a := range cols {
			if a != nil {
				a.Release()
			}
		}
	}()
	parts := make([]arrow.Array, len(c.pending))
	for i := range cols {
		for j, r := range c.pending {
			parts[j] = r.Column(i)
		}
		joined, err := array.Concatenate(parts, c.Mem)
		if err != nil {
			return nil, fmt.Errorf("join column %s: %w", c.Schema.Field(i).Name, err)
		}
		cols[i], err = retype(c.Mem, joined, c.Schema.Field(i).Type)
		joined.Release()
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Schema.Field(i).Name, err)
		}
	}
	return array.NewRecordBatch(c.Schema, cols, c.rows), nil
}

// Drain fetches the rest of r into c, and flushes it.
func (r *Result) Drain(ctx context.Context, c *Collector) error {
	defer c.Drop()
	for {
		rec, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if rec == nil {
			return c.Flush(ctx)
		}
		if err := c.Add(ctx, rec); err != nil {
			return err
		}
	}
}

// retype returns a as type to, which differs in labels only (names and
// nullability of children, time zone, extension), owned by the caller. A UUID
// comes as text and is parsed.
func retype(mem memory.Allocator, a arrow.Array, to arrow.DataType) (arrow.Array, error) {
	if err := digits(a); err != nil {
		return nil, err
	}
	if arrow.TypeEqual(a.DataType(), to, arrow.CheckMetadata()) {
		a.Retain()
		return a, nil
	}
	if u, ok := to.(*extensions.UUIDType); ok {
		text, ok := a.(*array.String)
		if !ok {
			return nil, fmt.Errorf("is %s, want text of a uuid", a.DataType())
		}
		return parseUUIDs(mem, text, u)
	}
	data := relabel(a.Data(), to)
	defer data.Release()
	return array.MakeFromData(data), nil
}

// relabel returns data with another type of the same layout, owned.
func relabel(data arrow.ArrayData, to arrow.DataType) arrow.ArrayData {
	storage := to
	if e, ok := to.(arrow.ExtensionType); ok {
		storage = e.StorageType()
	}
	children := make([]arrow.ArrayData, len(data.Children()))
	if nested, ok := storage.(arrow.NestedType); ok {
		for i, f := range nested.Fields() {
			children[i] = relabel(data.Children()[i], f.Type)
			defer children[i].Release()
		}
	}
	return array.NewData(to, data.Len(), data.Buffers(), children, data.NullN(), data.Offset())
}

// digits refuses a HUGEINT of more than 38 digits, which DuckDB hands out as a
// decimal of 38 digits.
func digits(a arrow.Array) error {
	d, ok := a.(*array.Decimal128)
	if !ok {
		return nil
	}
	if t, ok := d.DataType().(*arrow.Decimal128Type); !ok || t.Precision < 38 || t.Scale != 0 {
		return nil
	}
	for i := range d.Len() {
		if d.IsValid(i) && !d.Value(i).FitsInPrecision(38) {
			return &Error{Class: ClassRange, Text: fmt.Sprintf("the value %s has more than 38 digits", d.Value(i).ToString(0))}
		}
	}
	return nil
}

// UUIDs parses a column of texts; the result is owned by the caller.
func UUIDs(a arrow.Array) (arrow.Array, error) {
	text, ok := a.(*array.String)
	if !ok {
		return nil, fmt.Errorf("is %s, want text of a uuid", a.DataType())
	}
	return parseUUIDs(memory.DefaultAllocator, text, extensions.NewUUIDType())
}

func parseUUIDs(mem memory.Allocator, a *array.String, u *extensions.UUIDType) (arrow.Array, error) {
	b := array.NewFixedSizeBinaryBuilder(mem, &arrow.FixedSizeBinaryType{ByteWidth: 16})
	defer b.Release()
	b.Reserve(a.Len())
	var raw [16]byte
	for i := range a.Len() {
		if a.IsNull(i) {
			b.AppendNull()
			continue
		}
		s := a.Value(i)
		if len(s) != 36 {
			return nil, fmt.Errorf("%q is not a uuid", s)
		}
		s = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
		if _, err := hex.Decode(raw[:], []byte(s)); err != nil {
			return nil, fmt.Errorf("%q is not a uuid: %w", a.Value(i), err)
		}
		b.Append(raw[:])
	}
	storage := b.NewArray()
	defer storage.Release()
	data := array.NewData(u, storage.Len(), storage.Data().Buffers(), nil, storage.NullN(), 0)
	defer data.Release()
	return array.MakeFromData(data), nil
}

// Canonical returns t with the names that Arrow recommends for the children of
// lists, in place of DuckDB's.
func Canonical(t arrow.DataType) arrow.DataType {
	item := func(f arrow.Field) arrow.Field {
		return arrow.Field{Name: "item", Type: Canonical(f.Type), Nullable: true}
	}
	switch t := t.(type) {
	case *arrow.ListType:
		return arrow.ListOfField(item(t.ElemField()))
	case *arrow.FixedSizeListType:
		return arrow.FixedSizeListOfField(t.Len(), item(t.ElemField()))
	case *arrow.MapType:
		return arrow.MapOf(Canonical(t.KeyType()), Canonical(t.ItemType()))
	case *arrow.StructType:
		fields := make([]arrow.Field, t.NumFields())
		for i, f := range t.Fields() {
			fields[i] = arrow.Field{Name: f.Name, Type: Canonical(f.Type), Nullable: true}
		}
		return arrow.StructOf(fields...)
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return &arrow.TimestampType{Unit: t.Unit, TimeZone: "UTC"}
		}
	}
	return t
}

// SameLayout reports whether a column that DuckDB returns as type have can be
// relabelled to want without touching a value.
func SameLayout(have, want arrow.DataType) bool {
	if _, ok := want.(*extensions.UUIDType); ok {
		return have.ID() == arrow.STRING
	}
	if e, ok := want.(arrow.ExtensionType); ok {
		return SameLayout(have, e.StorageType())
	}
	if have.ID() != want.ID() {
		return false
	}
	switch h := have.(type) {
	case *arrow.TimestampType:
		w, ok := want.(*arrow.TimestampType)
		return ok && h.Unit == w.Unit && (h.TimeZone == "") == (w.TimeZone == "")
	case *arrow.FixedSizeListType:
		w, ok := want.(*arrow.FixedSizeListType)
		return ok && h.Len() == w.Len() && SameLayout(h.Elem(), w.Elem()) && w.Elem().ID() != arrow.EXTENSION
	case arrow.NestedType:
		w, ok := want.(arrow.NestedType)
		if !ok || len(h.Fields()) != len(w.Fields()) {
			return false
		}
		for i, f := range h.Fields() {
			if w.Fields()[i].Type.ID() == arrow.EXTENSION || !SameLayout(f.Type, w.Fields()[i].Type) {
				return false
			}
		}
		if _, ok := have.(*arrow.StructType); ok {
			for i, f := range h.Fields() {
				if f.Name != w.Fields()[i].Name {
					return false
				}
			}
		}
		return true
	}
	return arrow.TypeEqual(have, want)
}
