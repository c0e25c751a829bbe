package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/messages"
)

// The caps of a document.
const (
	bytesMax = 8 << 20 // of the text
	depthMax = 100     // nested lists and mappings
	// tokensMax bounds the separators of the text, and with them the parser's time and
	// memory: a node costs it about 2 us and 250 bytes, however short its text is.
	tokensMax = 1 << 18
)

// Load reads the document at path and parses it. Its error is Problems.
func Load(path string, cat Catalogue, env Env) (*Document, error) {
	text, err := readDocument(path)
	if err != nil {
		r := newReport(path)
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err // the path is in the place already
		}
		f := r.failure(problem{code: messages.CodeDocRead, what: "the document cannot be read: " + err.Error()})
		f.Where = messages.Place{File: path}
		return nil, Problems{f}
	}
	return Parse(path, text, cat, env)
}

func readDocument(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// One byte over the cap is enough for Parse to refuse the text.
	b, err := io.ReadAll(io.LimitReader(f, bytesMax+1))
	return b, errors.Join(err, f.Close())
}

// Parse validates a document. file is its name in problems. It returns a
// Document that nobody changes any more, or all Problems; never both. It does no
// I/O beyond env and keeps nothing of text.
func Parse(file string, text []byte, cat Catalogue, env Env) (*Document, error) {
	d := &decoder{report: newReport(file), env: env, deferred: map[string]*yaml.Node{}, fields: map[reflect.Type][]field{}}
	root := d.tree(text)
	if root == nil {
		return nil, d.err()
	}
	doc := &Document{}
	d.value(root, reflect.ValueOf(doc).Elem(), "", rules{})
	d.stages(doc, cat)
	doc.settle(&d.report)
	doc.check(&d.report)
	if err := d.err(); err != nil {
		return nil, err
	}
	doc.report, doc.vault = d.report, d.vault
	return doc, nil
}

// tree returns the root of the one document in text, or nil when its structure
// is such that no value of it can be trusted.
func (d *decoder) tree(text []byte) *yaml.Node {
	if !d.encoding(text) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	root, err := parseNext(dec)
	switch {
	case errors.Is(err, io.EOF):
		d.add(problem{code: messages.CodeDocMissing, what: "the document is empty"})
		return nil
	case err != nil:
		d.syntax(text, err)
		return nil
	}
	more, err := parseNext(dec)
	switch {
	case err == nil:
		d.add(problem{
			code: messages.CodeDocSyntax, at: position{max(1, more.Line), max(1, more.Column)},
			what: "found a second document, expected one per file", next: "remove the line `---` and what follows",
		})
	case !errors.Is(err, io.EOF):
		d.syntax(text, err)
	}
	if len(root.Content) != 1 {
		d.add(problem{code: messages.CodeDocMissing, what: "the document is empty"})
		return nil
	}
	if !d.structure(root.Content[0], nil, 1) {
		return nil
	}
	return root.Content[0]
}

// encoding refuses what the parser must not see.
func (d *decoder) encoding(text []byte) bool {
	refuse := func(code messages.Code, offset int, what string) bool {
		d.add(problem{code: code, what: what, at: behind(text[:offset])})
		return false
	}
	if len(text) > bytesMax {
		return refuse(messages.CodeDocRead, 0, fmt.Sprintf("the document is larger than %d MiB", bytesMax>>20))
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return refuse(messages.CodeDocSyntax, i, "found a NUL byte, expected UTF-8 text")
	}
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return refuse(messages.CodeDocSyntax, i, "found bytes that are not UTF-8")
		}
		i += n
	}
	if n := separators(text); n > tokensMax {
		return refuse(messages.CodeDocRead, 0, fmt.Sprintf("the document has about %d values, expected at most %d", n, tokensMax))
	}
	return true
}

// behind returns the position after text.
func behind(text []byte) position {
	line := text[bytes.LastIndexByte(text, '\n')+1:]
	return position{bytes.Count(text, []byte("\n")) + 1, utf8.RuneCount(line) + 1}
}

// separators counts what begins a value; at least one stands for each node. Lines
// that are comments do not count.
func separators(text []byte) (n int) {
	for l := range bytes.Lines(text) {
		if trimmed := bytes.TrimLeft(l, " \t"); len(trimmed) > 0 && trimmed[0] == '#' {
			continue
		}
		for i, c := range l {
			switch c {
			case ',', '[', '{':
				n++
			case ':', '-', '?':
				if i+1 == len(l) || bytes.IndexByte([]byte(" \t\r\n"), l[i+1]) >= 0 {
					n++
				}
			}
		}
	}
	return n
}

// parseNext parses the next document. The parser answers what it cannot do with a
// panic here and there; that is a syntax error too.
func parseNext(dec *yaml.Decoder) (n *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, errors.New("the YAML parser gave up")
		}
	}()
	n = &yaml.Node{}
	if err := dec.Decode(n); err != nil {
		return nil, err
	}
	return n, nil
}

var lineOfError = regexp.MustCompile(`^line (\d+): `)

// syntax reports an error of the parser, which knows the line and nothing more.
func (d *decoder) syntax(text []byte, err error) {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	at := position{1, 1}
	if m := lineOfError.FindStringSubmatch(what); m != nil {
		what = strings.TrimPrefix(what, m[0])
		if n, err := strconv.Atoi(m[1]); err == nil {
			at = position{n, columnOf(text, n)}
		}
	}
	next := ""
	if name, ok := strings.CutPrefix(what, "unknown anchor '"); ok { // the one error without a line
		name, _, _ = strings.Cut(name, "'")
		before, _, _ := bytes.Cut(text, []byte("*"+name))
		at = behind(before)
	}
	switch {
	case strings.Contains(what, "did not find expected"):
		next = "check that brackets and quotes are closed, and put quotes around ${..} inside [ ] and { }"
	case strings.HasPrefix(what, "unknown anchor"): // the name may be the begin of a password
		what = "found a YAML alias, which is not allowed here"
		next = "put quotes around a text that begins with *"
	case strings.Contains(what, "mapping values are not allowed"):
		next = "check the indentation, and put quotes around a text that holds `: `"
	case strings.Contains(what, "cannot start any token"):
		next = "indent with spaces, not tabs, and put quotes around a text that begins with @, `, % or a tab"
	}
	d.add(problem{code: messages.CodeDocSyntax, at: at, what: "this is not valid YAML: " + what, next: next})
}

// columnOf returns the column of the first character of a line that is no blank.
func columnOf(text []byte, n int) int {
	i := 1
	for l := range bytes.Lines(text) {
		if i == n {
			if c := bytes.IndexFunc(l, func(r rune) bool { return r != ' ' && r != '\t' && r != '\r' && r != '\n' }); c >= 0 {
				return c + 1
			}
			return 1
		}
		i++
	}
	return 1
}

// trail is the way from the root to a node; it becomes a key path only when there
// is a problem.
type trail struct {
	up   *trail
	key  string
	item int // when key is empty
}

func (t *trail) path() string {
	if t == nil {
		return ""
	}
	if t.key != "" {
		return childOf(t.up.path(), t.key)
	}
	return itemOf(t.up.path(), t.item)
}

// structure refuses what makes a document mean something else than it shows:
// anchors, aliases, merge keys, tags. It returns false when it is too deep to go on.
func (d *decoder) structure(n *yaml.Node, t *trail, depth int) bool {
	refuse := func(what, next string) {
		d.add(problem{code: messages.CodeDocSyntax, path: t.path(), at: position{n.Line, n.Column}, what: what, next: next})
	}
	if depth > depthMax {
		refuse(fmt.Sprintf("the document is nested deeper than %d levels", depthMax), "")
		return false
	}
	if n.Anchor != "" {
		refuse("found a YAML anchor, which is not allowed here", "write the value where it is used; put quotes around a text that begins with &")
	}
	switch {
	case n.Kind == yaml.AliasNode:
		refuse("found a YAML alias, which is not allowed here", "write the value itself; put quotes around a text that begins with *")
		return true // never followed: what it stands for may be endless
	case n.Style&yaml.TaggedStyle != 0:
		refuse("found a YAML tag, which is not allowed here", "remove the word that begins with !, or put quotes around the text")
	}
	ok := true
	for i, c := range n.Content {
		step := &trail{up: t, item: i}
		if n.Kind == yaml.MappingNode {
			k := n.Content[i&^1]
			step.key = k.Value
			if i%2 == 0 && k.Tag == mergeTag {
				d.add(problem{
					code: messages.CodeDocSyntax, path: t.path(), at: position{k.Line, k.Column},
					what: "found a YAML merge key, which is not allowed here", next: "write the keys themselves",
				})
			}
		}
		ok = d.structure(c, step, depth+1) && ok
	}
	return ok
}
