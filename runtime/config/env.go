package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"rapidbyte.io/node/messages"
)

// Env is where references are looked up. Both functions are required.
type Env struct {
	LookupEnv func(name string) (value string, ok bool)
	ReadFile  func(path string) ([]byte, error) // of ${file:/path}
}

// fileMax bounds what ${file:..} takes in, in bytes.
const fileMax = 64 << 10

// OS returns the environment and the files of the process.
func OS() Env { return Env{LookupEnv: os.LookupEnv, ReadFile: readSmall} }

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	return b, errors.Join(err, f.Close())
}

var (
	nameShape  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	vaultShape = regexp.MustCompile(`^[^/#\s]+/[^#\s]+#[^#\s]+$`)
)

// text is a scalar after its references were resolved.
type text struct {
	value string
	shown string // value with the references in place; may be printed unless it is secret
	refs  bool   // at least one reference
	open  bool   // at least one is not resolved
}

// hidden is a resolved value that must not be printed.
type hidden struct{ value, shown string }

// expand resolves the references of raw, once: what they hold is not looked at
// again. `$$` is a dollar. Problems name the reference, never what surrounds it.
func (d *decoder) expand(raw string, at position, path string) text {
	if !strings.Contains(raw, "$") {
		return text{value: raw, shown: quote(raw)}
	}
	var value, shown strings.Builder
	t := text{}
	for rest := raw; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		value.WriteString(before)
		shown.WriteString(before)
		if !found {
			break
		}
		switch {
		case strings.HasPrefix(after, "$"):
			value.WriteByte('$')
			shown.WriteString("$$")
			rest = after[1:]
		case strings.HasPrefix(after, "{"):
			body, tail, closed := strings.Cut(after[1:], "}")
			got, name, ok := "", "", false
			if closed {
				got, name, ok = d.resolve(body, at, path)
			} else {
				d.badReference(at, path)
			}
			t.refs, t.open = true, t.open || !ok
			value.WriteString(got)
			shown.WriteString("${" + name + "}")
			if ok && got != "" {
				d.hide(got, "${"+name+"}")
			}
			rest = tail
		default:
			value.WriteByte('$')
			shown.WriteByte('$')
			rest = after
		}
	}
	t.value, t.shown = value.String(), quote(shown.String())
	if t.refs {
		d.shown[path] = t.shown
	}
	if t.open {
		d.open[path] = true
	}
	return t
}

// resolve looks one reference up. name is how it may be printed: without its
// default, which may be a secret.
func (d *decoder) resolve(body string, at position, path string) (value, name string, ok bool) {
	switch kind, rest, _ := strings.Cut(body, ":"); {
	case kind == "vault" && vaultShape.MatchString(rest):
		d.vault = append(d.vault, d.failure(problem{
			code: messages.CodeNotAvailable, path: path, at: at,
			what: "${" + body + "}: secrets from a vault are not available in this version",
			next: "use ${NAME} or ${file:/path}",
		}))
		return "", body, false
	case kind == "file" && strings.HasPrefix(rest, "/"):
		value, ok = d.readFile(rest, at, path)
		return value, body, ok
	}
	name, fallback, defaulted := strings.Cut(body, ":-")
	if !nameShape.MatchString(name) || strings.Contains(fallback, "${") {
		d.badReference(at, path)
		return "", "", false
	}
	value, ok = d.env.LookupEnv(name)
	if defaulted && value == "" {
		return fallback, name, true
	}
	if !ok {
		d.add(problem{
			code: messages.CodeDocVariable, path: path, at: at,
			what: "the environment variable " + name + " is not set",
			next: "set it, or give a default: ${" + name + ":-default}",
		})
		return "", name, false
	}
	if !printable(value) {
		d.add(problem{
			code: messages.CodeDocVariable, path: path, at: at,
			what: "the environment variable " + name + " does not hold text (UTF-8 without NUL)",
		})
		return "", name, false
	}
	return value, name, true
}

func (d *decoder) badReference(at position, path string) {
	d.add(problem{
		code: messages.CodeDocVariable, path: path, at: at,
		what: "the text holds a ${ that begins no reference; expected ${NAME}, ${NAME:-default}, ${file:/path} or ${vault:mount/path#key}",
		next: "write $$ for a dollar",
	})
}

// readFile returns the content of a file without its last line break.
func (d *decoder) readFile(name string, at position, path string) (string, bool) {
	b, err := d.env.ReadFile(name)
	var what string
	switch {
	case err != nil:
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err // the path is in the text already
		}
		what = fmt.Sprintf("the file %s cannot be read: %v", quote(name), err)
	case len(b) > fileMax:
		what = fmt.Sprintf("the file %s is larger than %d bytes", quote(name), fileMax)
	case !printable(string(b)):
		what = fmt.Sprintf("the file %s does not hold text (UTF-8 without NUL)", quote(name))
	default:
		b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
		return string(b), true
	}
	d.add(problem{code: messages.CodeDocVariable, path: path, at: at, what: what})
	return "", false
}

func printable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// hide remembers a value that no problem may show.
func (d *decoder) hide(value, shown string) {
	if value != "" {
		d.hidden = append(d.hidden, hidden{value: value, shown: shown})
	}
}
