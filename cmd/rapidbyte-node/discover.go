package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
)

const discoverLong = `discover lists the streams of the document's source: columns with their types, keys,
columns that can serve as cursor (best first), and how many rows there are, where
the source knows. It changes nothing.`

func (a *app) discoverCommand() *cobra.Command {
	return &cobra.Command{
		Use: "discover DOCUMENT", Short: "List the streams of the source", Long: discoverLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node discover pipeline.yaml\n  rapidbyte-node discover pipeline.yaml --output json",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.discover(cmd.Context(), args[0])
			a.out = &out
			return nil
		},
	}
}

// discoverResult is the result of discover in the envelope.
type discoverResult struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	Streams  []discovered        `json:"streams"`
}

// discovered is one stream of the source.
type discovered struct {
	Name     messages.StreamID `json:"name"`
	Columns  []node.Column     `json:"columns"`
	Key      []string          `json:"key"`
	Cursors  []string          `json:"cursors"`                 // best first
	Estimate int64             `json:"rows_estimate,omitempty"` // absent: unknown
}

func (a *app) discover(ctx context.Context, path string) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	doc, err := a.load(path)
	if err != nil {
		return failed(err)
	}
	return stop.within(func(ctx context.Context) outcome {
		spec, err := node.Build(ctx, doc, node.BuildOptions{})
		if err != nil {
			return stop.failed(err)
		}
		found, err := node.Discover(ctx, spec)
		if err != nil {
			return stop.failed(err)
		}
		r := discoverResult{Pipeline: spec.Pipeline, Streams: make([]discovered, len(found))}
		for i, d := range found {
			r.Streams[i] = describe(d)
		}
		return outcome{summary: count(int64(len(found)), "stream"), result: r, human: r.text}
	})
}

func describe(d connectors.Discovered) discovered {
	out := discovered{
		Name: d.Stream, Columns: []node.Column{}, Key: append([]string{}, d.Key...), Cursors: append([]string{}, d.Cursors...), Estimate: d.Rows,
	}
	if d.Schema == nil {
		return out
	}
	for _, f := range d.Schema.Fields() {
		out.Columns = append(out.Columns, node.Column{Name: f.Name, Type: f.Type.String(), Nullable: f.Nullable})
	}
	return out
}

// text is the list for a person.
func (r discoverResult) text(l look) string {
	var b strings.Builder
	for i, s := range r.Streams {
		if i > 0 {
			b.WriteByte('\n')
		}
		facts := []string{count(int64(len(s.Columns)), "column")}
		if s.Estimate > 0 {
			facts = append(facts, "about "+count(s.Estimate, "row"))
		}
		b.WriteString(l.bold(l.name(string(s.Name))) + "  " + l.dim(strings.Join(facts, ", ")) + "\n")
		b.WriteString(table("  ", columnRows(s.Columns, s.Key, s.Cursors, l)))
	}
	if len(r.Streams) == 0 {
		b.WriteString("no streams\n")
	}
	return b.String()
}

// columnRows are the lines of a table of columns: name, type, what it is good for.
func columnRows(columns []node.Column, key, cursors []string, l look) [][]string {
	var out [][]string
	for _, c := range columns {
		var roles []string
		if slices.Contains(key, c.Name) {
			roles = append(roles, "key")
		}
		if i := slices.Index(cursors, c.Name); i == 0 {
			roles = append(roles, "cursor (best)")
		} else if i > 0 {
			roles = append(roles, "cursor")
		}
		null := "not null"
		if c.Nullable {
			null = "nullable"
		}
		out = append(out, []string{l.name(c.Name), l.cut(escape(c.Type), 2*nameMax), l.dim(null), strings.Join(roles, ", ")})
	}
	return out
}
