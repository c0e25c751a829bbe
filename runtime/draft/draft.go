package draft

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// Draft is a pipeline document in the making.
type Draft struct {
	Pipeline    messages.PipelineID
	From, To    End
	Tables      []string // names and patterns; empty: all of the default schema
	Exclude     []string
	AsText      []string // columns and types that travel as text; of a postgres source
	Mode        connectors.WriteMode
	Schema      string // of the targets; empty: the connector's own
	Parallelism config.Parallelism
	State       string // empty: as the parser says
}

// Env answers the variables that stand for the secrets of both ends, and asks base for
// the others.
func (d Draft) Env(base config.Env) config.Env {
	ask := base.LookupEnv
	base.LookupEnv = func(name string) (string, bool) {
		for _, e := range []End{d.From, d.To} {
			if v, ok := e.secrets[name]; ok {
				return v, true
			}
		}
		return ask(name)
	}
	return base
}

// Wanted is the document whose streams are what was asked for: names and patterns.
func (d Draft) Wanted() []byte {
	var b strings.Builder
	d.head(&b)
	tables := d.Tables
	if len(tables) == 0 {
		tables = []string{"*"}
	}
	for _, t := range tables {
		b.WriteString("    - name: " + scalar(t) + "\n")
		if len(d.Exclude) > 0 && strings.ContainsAny(t, "*?[") {
			b.WriteString("      exclude: [" + list(d.Exclude) + "]\n")
		}
	}
	d.tail(&b, "")
	return []byte(b.String())
}

// Text is the document with found as its streams, each with what is known of it.
func (d Draft) Text(found []connectors.Discovered) []byte {
	var b strings.Builder
	d.head(&b)
	for _, f := range found {
		for _, line := range d.remarks(f) {
			b.WriteString("    # " + printable(line) + "\n")
		}
		b.WriteString("    - name: " + scalar(literal(string(f.Stream))) + "\n")
	}
	d.tail(&b, template(found))
	return []byte(b.String())
}

// Existing is a document that reads from the destination: what is there already.
// ok is false where a target cannot be anybody else's.
func (d Draft) Existing() (text []byte, ok bool) {
	if d.To.use == useFile { // its manifest belongs to one pipeline
		return nil, false
	}
	look := d
	look.From, look.To, look.Tables, look.Exclude, look.AsText = d.To, d.From, nil, nil, nil
	if d.Schema != "" {
		look.From.keys = append(slices.Clone(d.To.keys), [2]string{"schema", scalar(d.Schema)})
	}
	look.Schema = ""
	look.To = End{use: "blackhole"}
	return look.Wanted(), true
}

func (d Draft) head(b *strings.Builder) {
	fmt.Fprintf(b, "version: \"1.0\"\npipeline: %s  # names the state: keep it\n\nsource:\n", d.Pipeline)
	var more [][2]string
	if len(d.AsText) > 0 {
		more = [][2]string{{"as_text", "[" + list(d.AsText) + "]"}}
	}
	d.From.write(b, more)
	b.WriteString("  streams:\n")
}

func (d Draft) tail(b *strings.Builder, target string) {
	b.WriteString("\ndestination:\n")
	var more [][2]string
	if d.Schema != "" {
		more = [][2]string{{"schema", scalar(d.Schema)}}
	}
	d.To.write(b, more)
	fmt.Fprintf(b, "  write_mode: %s  # append | replace | upsert\n", d.Mode)
	if target != "" {
		b.WriteString("  target: " + scalar(target) + "  # tables of several schemas have one name\n")
	}
	if d.State != "" {
		b.WriteString("\nstate:\n  connection: " + scalar(d.State) + "\n")
	}
	if d.Parallelism > 0 {
		b.WriteString("\nresources:\n  parallelism: " + d.Parallelism.String() + "\n")
	}
}

func (e End) write(b *strings.Builder, more [][2]string) {
	b.WriteString("  use: " + e.use + "\n")
	if len(e.keys)+len(more) == 0 {
		return
	}
	b.WriteString("  config:")
	if e.remark != "" {
		b.WriteString("  # " + e.remark)
	}
	b.WriteByte('\n')
	for _, k := range slices.Concat(e.keys, more) {
		b.WriteString("    " + k[0] + ": " + k[1] + "\n")
	}
}

// remarks say what a person decides by.
func (d Draft) remarks(f connectors.Discovered) []string {
	var facts []string
	switch {
	case f.Rows == 1:
		facts = append(facts, "about 1 row")
	case f.Rows > 1:
		facts = append(facts, fmt.Sprintf("about %d rows", f.Rows))
	}
	if len(f.Key) > 0 {
		facts = append(facts, "key "+strings.Join(f.Key, ", "))
	} else {
		facts = append(facts, "no key: upsert needs destination.primary_key")
	}
	out := []string{strings.Join(facts, ", ")}
	if len(f.Cursors) > 0 && d.From.use == usePostgres {
		hint := "incremental: `sync_mode: incremental`, `cursor_field: " + f.Cursors[0] + "`"
		if len(f.Key) == 1 && f.Key[0] != f.Cursors[0] {
			hint += ", `tie_breaker_field: " + f.Key[0] + "`"
		}
		out = append(out, hint+", write_mode append or upsert")
	}
	return out
}

// template is the target template that keeps tables of one name in several schemas
// apart, "" where there are none.
func template(found []connectors.Discovered) string {
	seen := map[string]bool{}
	for _, f := range found {
		name := string(f.Stream)
		if _, after, ok := strings.Cut(name, "."); ok {
			name = after
		}
		name = strings.ToLower(name)
		if seen[name] {
			return "{schema}_{table}"
		}
		seen[name] = true
	}
	return ""
}

// literal spells a name so that none of it is a pattern.
func literal(name string) string {
	if !strings.ContainsAny(name, "*?[") {
		return name
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

var plainShape = regexp.MustCompile(`^[A-Za-z/_][A-Za-z0-9/_.-]*$`)

// scalar spells a text as YAML, with nothing in it that means more than itself.
func scalar(s string) string {
	if plainShape.MatchString(s) && !slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(fmt.Sprintf("draft: %v", err)) // a text always encodes
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "$", "$$")
}

func list(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = scalar(t)
	}
	return strings.Join(out, ", ")
}

// printable keeps a comment on its line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			return '?'
		}
		return r
	}, s)
}
