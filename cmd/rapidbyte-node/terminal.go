package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// look is what one output can show. The zero look is plain ASCII.
type look struct {
	color   bool
	unicode bool
	tty     bool
	columns int // of the terminal; 0 unknown
	names   int // cells of an identifier; 0 is nameMax
}

// look returns how text on w may look.
func (a *app) look(w io.Writer) look {
	var l look
	if f, ok := w.(*os.File); ok {
		fd := int(f.Fd()) //nolint:gosec // a descriptor is small
		if l.tty = term.IsTerminal(fd); l.tty {
			l.columns, _, _ = term.GetSize(fd) // 0 when it does not say
		}
	}
	none, _ := a.env("NO_COLOR")
	if a.flags.output == outputPlain || none != "" {
		return l
	}
	kind, _ := a.env("TERM")
	l.color = l.tty && kind != "dumb"
	l.unicode = a.utf8() && kind != "dumb"
	return l
}

// utf8 reports whether the locale says so.
func (a *app) utf8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v, _ := a.env(name); v != "" {
			v = strings.ToLower(strings.ReplaceAll(v, "-", ""))
			return strings.Contains(v, "utf8")
		}
	}
	return false
}

func (l look) pick(symbol, ascii string) string {
	if l.unicode {
		return symbol
	}
	return ascii
}

func (l look) paint(code, s string) string {
	if !l.color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (l look) bold(s string) string   { return l.paint("1", s) }
func (l look) dim(s string) string    { return l.paint("2", s) }
func (l look) red(s string) string    { return l.paint("31", s) }
func (l look) green(s string) string  { return l.paint("32", s) }
func (l look) yellow(s string) string { return l.paint("33", s) }

func (l look) good() string  { return l.green(l.pick("✓", "+")) }
func (l look) warn() string  { return l.yellow(l.pick("⚠", "!")) }
func (l look) bad() string   { return l.red(l.pick("✗", "x")) }
func (l look) none() string  { return l.dim(l.pick("·", "-")) }
func (l look) arrow() string { return l.pick("→", "->") }

// escape makes outside text safe for one line of a terminal or a log: no control
// character, no ANSI sequence, no text direction.
func escape(s string) string { return escaped(s, false) }

// escapeLines is escape that keeps line breaks and tabs.
func escapeLines(s string) string { return escaped(s, true) }

func escaped(s string, lines bool) string {
	clean := func(r rune) bool {
		if lines && (r == '\n' || r == '\t') {
			return true
		}
		return r != utf8.RuneError && !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r) && r != '\u2028' && r != '\u2029'
	}
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case clean(r) || r == utf8.RuneError:
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// nameMax is how wide the name of a stream is shown.
const nameMax = 40

// name shows an identifier: escaped, cut in the middle of nothing but at its end.
func (l look) name(s string) string { return l.cut(escape(s), cmp.Or(l.names, nameMax)) }

func (l look) cut(s string, width int) string {
	return runewidth.Truncate(s, max(width, 1), l.pick("…", "~"))
}

// width is the number of cells that s takes, colours not counted.
func width(s string) int {
	if strings.IndexByte(s, 0x1b) < 0 {
		return runewidth.StringWidth(s)
	}
	n := 0
	for {
		text, rest, found := strings.Cut(s, "\x1b[")
		n += runewidth.StringWidth(text)
		if !found {
			return n
		}
		if _, s, found = strings.Cut(rest, "m"); !found {
			return n
		}
	}
}

// pad fills s with spaces on the right; a negative to pads on the left.
func pad(s string, to int) string {
	fill := strings.Repeat(" ", max(0, max(to, -to)-width(s)))
	if to < 0 {
		return fill + s
	}
	return s + fill
}

// table aligns cells: a column is as wide as its widest cell. The last cell of a
// shorter row is a remark and widens nothing. right says which columns are figures.
func table(indent string, rows [][]string, right ...int) string {
	columns := 0
	for _, r := range rows {
		columns = max(columns, len(r))
	}
	widths := make([]int, columns)
	for _, r := range rows {
		for i, c := range r {
			if i < len(r)-1 || len(r) == columns {
				widths[i] = max(widths[i], width(c))
			}
		}
	}
	sign := make([]int, len(widths))
	for i := range sign {
		sign[i] = 1
	}
	for _, i := range right {
		if i < len(sign) {
			sign[i] = -1
		}
	}
	var b strings.Builder
	for _, r := range rows {
		cells := make([]string, 0, columns)
		for i, c := range r {
			if widths[i] > 0 || c != "" {
				cells = append(cells, pad(c, sign[i]*widths[i]))
			}
		}
		b.WriteString(strings.TrimRight(indent+strings.Join(cells, "  "), " ") + "\n")
	}
	return b.String()
}

// number groups digits: 1,204,000.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		return "-" + s
	}
	return s
}

// short is a figure of a rate: 412, 41.2k, 4.1M.
func short(v float64) string {
	switch {
	case v >= 999.5e6:
		return fmt.Sprintf("%.1fG", v/1e9)
	case v >= 999.5e3:
		return fmt.Sprintf("%.1fM", v/1e6)
	case v >= 9999.5:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v >= 999.5:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

func size(n float64) string {
	const mib = 1 << 20
	switch {
	case n >= 1<<30*10:
		return fmt.Sprintf("%.1f GiB", n/(1<<30))
	case n >= mib/10:
		return fmt.Sprintf("%.1f MiB", n/mib)
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", n/(1<<10))
	}
	return fmt.Sprintf("%.0f B", n)
}

func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm %02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh %02dm", int(d.Hours()), int(d.Minutes())%60)
}

// eta is a time to go, to the second.
func eta(d time.Duration) string {
	if d = d.Round(time.Second); d < time.Minute {
		return fmt.Sprintf("%ds", int(d.Seconds()))
	}
	return took(d)
}

// count is a number with its noun: 1 row, 2 rows.
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}
