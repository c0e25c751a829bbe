package query

import (
	"errors"
	"strconv"
	"strings"
)

// Stream says what to read. The zero values of the optional fields leave them out.
type Stream struct {
	Schema, Table string
	Columns       []Column // at least one

	Order  []Key    // cursor, then tie-breakers; empty: any order
	After  []string // values of the first keys: only rows behind them
	Again  bool     // instead: only rows up to After
	From   *string  // least value of the first key, inclusive
	UpTo   *string  // greatest value of the first key, inclusive
	Nulls  Nulls    // what becomes of rows without a cursor
	Blocks *Blocks
	Range  *Range
	Filter string // condition in SQL
	Limit  int64  // rows
}

// Column is one column of the result.
type Column struct {
	Name string
	Text bool // as the text that the server makes of it
}

// Key is a column that orders rows.
type Key struct {
	Column string
	Type   string // as a cast spells it, without a modifier
	Schema string // of its comparison operators; empty: pg_catalog
}

// Nulls says which rows are read as to their cursor.
type Nulls uint8

// The choices.
const (
	NullsAny  Nulls = iota // nothing is said; a bound leaves them out
	NullsNone              // rows with a cursor
	NullsOnly              // rows without one, in the order of the tie-breakers
)

// Blocks is a range of the blocks of a heap.
type Blocks struct {
	From int64 // first block
	To   int64 // behind the last block; 0: no end
}

// Range is a range of one column.
type Range struct {
	Key   Key
	From  *string // inclusive; nil: no beginning
	To    *string // exclusive; nil: no end
	Nulls bool    // rows without a value belong to it
}

// Select returns the statement that reads s.
func Select(s Stream) (string, error) {
	if len(s.Columns) == 0 {
		return "", errors.New("a query needs a column")
	}
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, c := range s.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.expression())
	}
	b.WriteString("\nFROM " + Qualified(s.Schema, s.Table))
	for i, c := range s.conditions() {
		if i == 0 {
			b.WriteString("\nWHERE ")
		} else {
			b.WriteString("\n  AND ")
		}
		b.WriteString(c)
	}
	if by := s.orderBy(); len(by) > 0 {
		b.WriteString("\nORDER BY " + strings.Join(by, ", "))
	}
	if s.Limit > 0 {
		b.WriteString("\nLIMIT " + strconv.FormatInt(s.Limit, 10))
	}
	sql := b.String()
	if strings.ContainsRune(sql, 0) {
		return "", errors.New("a query cannot hold a NUL byte")
	}
	return sql, nil
}

// Copy returns the statement that sends the rows of a SELECT in binary.
func Copy(sql string) string { return "COPY (\n" + sql + "\n) TO STDOUT (FORMAT binary)" }

func (c Column) expression() string {
	if !c.Text {
		return Ident(c.Name)
	}
	return Ident(c.Name) + "::pg_catalog.text"
}

// conditions returns what is required of a row, the narrowest range first.
func (s Stream) conditions() []string {
	var out []string
	if s.Blocks != nil {
		out = append(out, s.Blocks.conditions()...)
	}
	if s.Range != nil {
		out = append(out, s.Range.condition()...)
	}
	if len(s.Order) > 0 {
		out = append(out, s.bounds()...)
	}
	if s.Filter != "" {
		out = append(out, "(\n"+s.Filter+"\n)") // on lines of its own: it may end in a comment
	}
	return out
}

func (b Blocks) conditions() []string {
	tid := func(block int64) string { return "'(" + strconv.FormatInt(block, 10) + ",0)'::pg_catalog.tid" }
	var out []string
	if b.From > 0 {
		out = append(out, "ctid >= "+tid(b.From))
	}
	if b.To > 0 {
		out = append(out, "ctid < "+tid(b.To))
	}
	return out
}

func (r Range) condition() []string {
	var out []string
	if r.From != nil {
		out = append(out, r.Key.compare(">=", *r.From))
	}
	if r.To != nil {
		out = append(out, r.Key.compare("<", *r.To))
	}
	if !r.Nulls || len(out) == 0 {
		return out
	}
	return []string{"(" + strings.Join(out, " AND ") + " OR " + Ident(r.Key.Column) + " IS NULL)"}
}

// bounds returns what is required of cursor and tie-breakers.
func (s Stream) bounds() []string {
	cursor, keys := s.Order[0], s.Order
	var out []string
	switch s.Nulls {
	case NullsOnly:
		out, keys = append(out, Ident(cursor.Column)+" IS NULL"), keys[1:]
	case NullsNone:
		out = append(out, Ident(cursor.Column)+" IS NOT NULL")
	case NullsAny:
	}
	if n := min(len(s.After), len(keys)); n > 0 {
		rest := behind(keys[:n], s.After[:n])
		if s.Again {
			rest = []string{"NOT (" + strings.Join(rest, " AND ") + ")"}
		}
		out = append(out, rest...)
	}
	if s.Nulls == NullsOnly {
		return out
	}
	if s.From != nil {
		out = append(out, cursor.compare(">=", *s.From))
	}
	if s.UpTo != nil {
		out = append(out, cursor.compare("<=", *s.UpTo))
	}
	return out
}

// behind compares with a position, first key first. A row comparison serves an index, but
// has one operator for all; where they differ it is written out.
func behind(keys []Key, values []string) []string {
	if len(keys) == 1 {
		return []string{keys[0].compare(">", values[0])}
	}
	columns, literals, same := make([]string, len(keys)), make([]string, len(keys)), true
	for i, k := range keys {
		columns[i], literals[i] = Ident(k.Column), k.literal(values[i])
		same = same && k.Schema == ""
	}
	if same {
		return []string{"(" + strings.Join(columns, ", ") + ") > (" + strings.Join(literals, ", ") + ")"}
	}
	last := len(keys) - 1
	text := keys[last].compare(">", values[last])
	for i := last - 1; i >= 0; i-- {
		text = "(" + keys[i].compare(">", values[i]) + " OR (" + keys[i].compare("=", values[i]) + " AND " + text + "))"
	}
	return []string{keys[0].compare(">=", values[0]), text} // the first serves an index
}

func (k Key) literal(value string) string { return Literal(value) + "::" + k.Type }

func (k Key) compare(operator, value string) string {
	if k.Schema != "" {
		operator = "OPERATOR(" + Ident(k.Schema) + "." + operator + ")"
	}
	return Ident(k.Column) + " " + operator + " " + k.literal(value)
}

// orderBy sorts by the default order of the types, which is that of the operators. The
// names are qualified: alone they would mean a column of the result, which may be text.
func (s Stream) orderBy() []string {
	keys := s.Order
	if len(keys) > 0 && s.Nulls == NullsOnly {
		keys = keys[1:]
	}
	var out []string
	for _, k := range keys {
		out = append(out, Qualified(s.Table, k.Column))
	}
	return out
}
