package connectors

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
)

// Secret is a text that cannot be printed by accident: every formatting, logging
// and encoding path shows Redacted instead. Compare secrets by what they Reveal.
type Secret struct {
	text *string // behind a pointer: fmt reaches fields past Format for a bad verb such as %p
}

// Redacted is what a Secret shows.
const Redacted = "[secret]"

// NewSecret wraps text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text. Call it where it leaves the process, nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// String implements fmt.Stringer.
func (s Secret) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return Redacted }

// Format implements fmt.Formatter, so that no verb reaches the field.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements encoding.TextMarshaler; JSON and YAML use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = NewSecret(string(b))
	return nil
}

// ByteSize is a number of bytes. As text it is a bare integer or takes kb, mb or
// gb: powers of 1024.
type ByteSize int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ByteSize) UnmarshalText(b []byte) error {
	text := strings.ToLower(strings.TrimSpace(string(b)))
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	unit := strings.TrimSpace(text[len(digits):])
	shift, ok := map[string]uint{"": 0, "b": 0, "kb": 10, "mb": 20, "gb": 30}[unit]
	if !ok {
		return fmt.Errorf("unknown unit %q: want a number of bytes, or kb, mb, gb", unit)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return errors.New("want a number of bytes such as 65536, 64kb, 64mb, 1gb")
	}
	if n > math.MaxInt64>>shift {
		return errors.New("too large")
	}
	*s = ByteSize(n << shift)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s ByteSize) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns the shortest exact text.
func (s ByteSize) String() string {
	for _, u := range []struct {
		name  string
		shift uint
	}{{"gb", 30}, {"mb", 20}, {"kb", 10}} {
		if s > 0 && s%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(s>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Problem is one thing wrong with a connector's configuration. Path is relative
// to the configuration: "csv.delimiter", "columns.id".
type Problem struct {
	Path    string
	Message string // what was found and what is expected
}
