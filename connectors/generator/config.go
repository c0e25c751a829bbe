package generator

import (
	"fmt"
	"time"

	"rapidbyte.io/node/connectors"
)

// Kind says what a column holds.
type Kind string

// The kinds.
const (
	KindID        Kind = "id"        // int64, the number of the row from 1; never null
	KindInt       Kind = "int"       // int64 between -2^31 and 2^31-1
	KindFloat     Kind = "float"     // float64 from 0 up to 1000
	KindBool      Kind = "bool"      //
	KindText      Kind = "text"      // letters a to p, `bytes` of them
	KindBytes     Kind = "bytes"     // binary that does not compress, `bytes` of it
	KindTimestamp Kind = "timestamp" // an instant of the years 2020 to 2024, microseconds
	KindDate      Kind = "date"      // a day of the years 2000 to 2027
	KindUUID      Kind = "uuid"      // version 4
	KindDecimal   Kind = "decimal"   // decimal(18, 2), up to ten million in size
)

// ColumnConfig is one column of every stream.
type ColumnConfig struct {
	Name string `yaml:"name" jsonschema:"required" jsonschema_description:"Name of the column."`
	Kind Kind   `yaml:"kind" jsonschema:"required,enum=id,enum=int,enum=float,enum=bool,enum=text,enum=bytes,enum=timestamp,enum=date,enum=uuid,enum=decimal" jsonschema_description:"What the column holds."`
	// Bytes is the length of a text or binary; 0 is 12 for text and 1kb for bytes.
	Bytes connectors.ByteSize `yaml:"bytes,omitempty" jsonschema_description:"Length of a value of kind text (default 12) or bytes (default 1kb)."`
	// Nulls is the share of missing values, from 0 to 1.
	Nulls float64 `yaml:"nulls,omitempty" jsonschema:"minimum=0,maximum=1" jsonschema_description:"Share of missing values, 0 to 1."`
}

// SourceConfig configures the source.
type SourceConfig struct {
	Rows int64  `yaml:"rows" jsonschema:"default=1000,minimum=0" jsonschema_description:"Rows of each stream."`
	Seed uint64 `yaml:"seed" jsonschema:"default=1" jsonschema_description:"Other seeds give other rows."`
	// Columns of every stream; empty: id, name, amount, active, created_at.
	Columns []ColumnConfig `yaml:"columns,omitempty" jsonschema_description:"Columns of every stream; without it id, name, amount, active and created_at."`
	// RowsPerSecond slows each task down; 0 is as fast as possible.
	RowsPerSecond int64 `yaml:"rows_per_second,omitempty" jsonschema:"minimum=0" jsonschema_description:"Upper bound of the speed of each task; 0 is as fast as possible."`
}

const (
	textBytes    = 12      // of a text, unless configured
	payloadBytes = 1 << 10 // of a binary, unless configured
	valueBytes   = 1 << 30 // at most, of one value
	columnsMax   = 4096
)

// defaultColumns is what a stream has when nobody says.
func defaultColumns() []ColumnConfig {
	return []ColumnConfig{
		{Name: "id", Kind: KindID},
		{Name: "name", Kind: KindText},
		{Name: "amount", Kind: KindDecimal, Nulls: 0.1},
		{Name: "active", Kind: KindBool},
		{Name: "created_at", Kind: KindTimestamp},
	}
}

// Problems lists everything that is wrong with c.
func (c SourceConfig) Problems() []connectors.Problem {
	var out []connectors.Problem
	add := func(path, format string, args ...any) {
		out = append(out, connectors.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if c.Rows < 0 {
		add("rows", "is %d, want 0 or more", c.Rows)
	}
	if c.RowsPerSecond < 0 {
		add("rows_per_second", "is %d, want 0 (as fast as possible) or more", c.RowsPerSecond)
	}
	if len(c.Columns) > columnsMax {
		add("columns", "has %d columns, want at most %d", len(c.Columns), columnsMax)
	}
	seen := make(map[string]bool)
	for i, col := range c.Columns {
		at := func(key string) string { return fmt.Sprintf("columns[%d].%s", i, key) }
		switch {
		case col.Name == "":
			add(at("name"), "is empty, want the name of the column")
		case seen[col.Name]:
			add(at("name"), "%q is there twice", col.Name)
		}
		seen[col.Name] = true
		switch col.Kind {
		case KindText, KindBytes:
			if col.Bytes < 0 || col.Bytes > valueBytes {
				add(at("bytes"), "is %s, want at most %s", col.Bytes, connectors.ByteSize(valueBytes))
			}
		case KindID, KindInt, KindFloat, KindBool, KindTimestamp, KindDate, KindUUID, KindDecimal:
			if col.Bytes != 0 {
				add(at("bytes"), "has no meaning for kind %s, only for text and bytes", col.Kind)
			}
		default:
			add(at("kind"), "is %q, want id, int, float, bool, text, bytes, timestamp, date, uuid or decimal", col.Kind)
		}
		if !(col.Nulls >= 0 && col.Nulls <= 1) { // NaN too
			add(at("nulls"), "is %v, want a share between 0 and 1", col.Nulls)
		} else if col.Kind == KindID && col.Nulls > 0 {
			add(at("nulls"), "is %v, but an id is never missing", col.Nulls)
		}
	}
	return out
}

// DestinationConfig configures the blackhole.
type DestinationConfig struct {
	// WriteDelay is waited before each batch is taken, as Go writes durations; empty
	// does not wait.
	WriteDelay string `yaml:"write_delay,omitempty" jsonschema_description:"Time that each batch takes, such as 5ms; for tests of a slow destination."`
	// CommitDelay is waited before each commit.
	CommitDelay string `yaml:"commit_delay,omitempty" jsonschema_description:"Time that each commit takes, such as 20ms."`
}

// Problems lists everything that is wrong with c.
func (c DestinationConfig) Problems() []connectors.Problem {
	var out []connectors.Problem
	for _, f := range []struct{ path, text string }{{"write_delay", c.WriteDelay}, {"commit_delay", c.CommitDelay}} {
		if _, err := delay(f.text); err != nil {
			out = append(out, connectors.Problem{Path: f.path, Message: err.Error()})
		}
	}
	return out
}

// delay reads a duration; empty is none.
func delay(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("is %q, want a duration such as 5ms or 1.5s", text)
	}
	return d, nil
}
