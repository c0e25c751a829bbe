package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/draft"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
	"rapidbyte.io/node/statestore"
)

// modeFlag is a write mode on the command line; empty: not given.
type modeFlag connectors.WriteMode

// String implements pflag.Value.
func (m *modeFlag) String() string { return string(*m) }

// Set implements pflag.Value.
func (m *modeFlag) Set(s string) error {
	switch v := connectors.WriteMode(s); v {
	case connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert:
		*m = modeFlag(v)
		return nil
	}
	return errors.New("want append, replace or upsert")
}

// Type implements pflag.Value.
func (m *modeFlag) Type() string { return "append|replace|upsert" }

// parallelismFlag is a number of tasks on the command line.
type parallelismFlag struct{ config.Parallelism }

// Set implements pflag.Value.
func (p *parallelismFlag) Set(s string) error { return p.UnmarshalText([]byte(s)) }

// Type implements pflag.Value.
func (p *parallelismFlag) Type() string { return "n" }

// draftFlags say what to draft.
type draftFlags struct {
	from, to    string
	tables      []string
	exclude     []string
	asText      []string
	mode        modeFlag
	schema      string
	parallelism parallelismFlag
	state       string
}

func (o *draftFlags) add(cmd *cobra.Command, mode string) {
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "`URI` of the source")
	f.StringVar(&o.to, "to", "", "`URI` of the destination")
	f.StringArrayVar(&o.tables, "tables", nil, "tables or a `pattern`: orders_* in the default schema, public.* in one, *.* in all; may be repeated (default: all of the default schema)")
	f.StringArrayVar(&o.exclude, "exclude", nil, "`pattern` of tables to leave out; may be repeated")
	f.StringArrayVar(&o.asText, "as-text", nil, "`column` (table.column) or type of a PostgreSQL source that travels as text: for infinity, 24:00 and what else Arrow cannot hold; may be repeated")
	f.Var(&o.mode, "write-mode", mode)
	f.StringVar(&o.schema, "schema", "", "`name` of the schema of the targets")
	f.Var(&o.parallelism, "parallelism", "tasks at a time, a number or auto (default auto)")
	f.StringVar(&o.state, "state", "", "`path` of the state store (default "+config.DefaultStatePath+")")
	_ = cmd.RegisterFlagCompletionFunc("write-mode", cobra.FixedCompletions([]string{"append", "replace", "upsert"}, cobra.ShellCompDirectiveNoFileComp))
}

// bothEnds is the Args of the commands that take flags only.
func bothEnds(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{what: fmt.Sprintf("%s takes no argument, found %d", cmd.Name(), len(args)), next: "Give both ends: `" + cmd.CommandPath() + " --from URI --to URI`."}
	}
	for _, name := range []string{"from", "to"} {
		if v, _ := cmd.Flags().GetString(name); v == "" {
			return usageError{what: cmd.Name() + " needs --" + name, next: "For example: `" + cmd.CommandPath() + " --from postgres://app@db/shop --to duckdb:shop.duckdb`."}
		}
	}
	return nil
}

// drafted is a document that was made up, and how.
type drafted struct {
	draft draft.Draft
	text  []byte
	found []connectors.Discovered
}

// draft looks at the source and writes the document. name says what the pipeline is
// called.
func (a *app) draft(ctx context.Context, o draftFlags, name func(from, to draft.End) messages.PipelineID) (drafted, error) {
	from, err := draft.Parse(draft.SideSource, o.from)
	if err != nil {
		return drafted{}, err
	}
	to, err := draft.Parse(draft.SideDestination, o.to)
	if err != nil {
		return drafted{}, err
	}
	d := drafted{draft: draft.Draft{
		Pipeline: name(from, to), From: from, To: to, Tables: o.tables, Exclude: o.exclude, AsText: o.asText,
		Mode:   cmp.Or(connectors.WriteMode(o.mode), connectors.ModeReplace),
		Schema: o.schema, Parallelism: o.parallelism.Parallelism, State: o.state,
	}}
	wanted, err := a.parseDraft(d.draft, d.draft.Wanted())
	if err != nil {
		return drafted{}, err
	}
	if d.found, err = node.Survey(ctx, wanted); err != nil {
		return drafted{}, plainly(err)
	}
	d.text = d.draft.Text(d.found)
	return d, nil
}

// parseDraft parses a document of ours; what is wrong with it is wrong with the options.
func (a *app) parseDraft(d draft.Draft, text []byte) (*config.Document, error) {
	env := config.OS()
	env.LookupEnv = a.env
	doc, err := config.Parse("", text, plugin.Builtins(), d.Env(env))
	if err != nil {
		return nil, plainly(err)
	}
	return doc, nil
}

// plainly takes the places out of problems: nobody has seen the document.
func plainly(err error) error {
	p, ok := errors.AsType[config.Problems](err)
	if !ok {
		return err
	}
	first := p[0]
	first.Where = messages.Place{Field: first.Where.Field}
	return first
}

const initLong = `init writes a pipeline document: the tables of the source, each with what is known of
it, ready to be looked through and changed. Views are left out unless they are named.

Passwords are not written: the document names a variable, and says which.

  postgres://user@host:5432/database   sslmode and the like behind a ?
  duckdb:PATH                          a database file
  file:PATH?format=parquet             files to read; a folder to write to`

func (a *app) initCommand() *cobra.Command {
	var o draftFlags
	var file string
	cmd := &cobra.Command{
		Use: "init --from URI --to URI", Short: "Write a document from what the source has", Long: initLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node init --from postgres://app@db/shop --to postgres://loader@wh/dw --tables 'public.*' --file shop.yaml",
		Args:    bothEnds, ValidArgsFunction: cobra.NoFileCompletions, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := a.init(cmd.Context(), o, file)
			a.out = &out
			return nil
		},
	}
	o.add(cmd, "what a run does to its targets (default replace)")
	cmd.Flags().StringVar(&file, "file", "", "write to this `file` instead of stdout; it must not exist")
	return cmd
}

// initResult is the result of init in the envelope.
type initResult struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	Streams  int                 `json:"streams"`
	File     string              `json:"file,omitempty"`
	Document string              `json:"document"`
}

func (a *app) init(ctx context.Context, o draftFlags, file string) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	if _, err := os.Lstat(file); file != "" && err == nil && !special(file) {
		return failed(outputFailure("write the document", file, errors.New("the file exists")))
	}
	return stop.within(func(ctx context.Context) outcome {
		d, err := a.draft(ctx, o, draft.ShortName)
		if err != nil {
			return stop.failed(err)
		}
		text := initHead(cmp.Or(file, "pipeline.yaml")) + string(d.text)
		r := initResult{Pipeline: d.draft.Pipeline, Streams: len(d.found), File: file, Document: text}
		out := outcome{summary: "a document of " + count(int64(r.Streams), "stream"), result: r, human: func(look) string { return text }}
		if file == "" {
			return out
		}
		if err := writeAtomically(file, []byte(text)); err != nil {
			return failed(outputFailure("write the document", file, err))
		}
		out.human = func(l look) string {
			return fmt.Sprintf("%s %s  %s in %s\n  %s rapidbyte-node check %s\n", l.good(), l.bold(escape(string(r.Pipeline))),
				count(int64(r.Streams), "stream"), escape(file), l.dim("next "+l.arrow()), argument(file))
		}
		return out
	})
}

// initHead says what to do with the document.
func initHead(file string) string {
	file = argument(file)
	return strings.Join([]string{
		"# Look through it, then:", "#   rapidbyte-node check " + file, "#   rapidbyte-node run " + file,
		"# rapidbyte-node schema prints all keys there are.", "", "",
	}, "\n")
}

const copyLong = `copy moves tables from one place to another without a document: what init would write
is run at once. The pipeline is called after both ends, so that a copy that was stopped
goes on where it was, and one that is done can be run again.

Without --write-mode each target is replaced as a whole, in one step; a target that is
there already and that this copy has not made is refused. Say --write-mode replace if it
is to be overwritten, append to add to it, upsert to merge by the primary key.

  postgres://user@host:5432/database   sslmode and the like behind a ?
  duckdb:PATH                          a database file
  file:PATH?format=parquet             files to read; a folder to write to

A password in a URI can be seen in the list of processes; .pgpass keeps it out of there.`

func (a *app) copyCommand() *cobra.Command {
	var o draftFlags
	var r runFlags
	cmd := &cobra.Command{
		Use: "copy --from URI --to URI", Short: "Move tables without a document", Long: copyLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node copy --from postgres://app@db/shop --to postgres://loader@wh/dw --tables 'public.*' --schema raw\n" +
			"  rapidbyte-node copy --from 'file:exports/*.csv' --to duckdb:shop.duckdb",
		Args: bothEnds, ValidArgsFunction: cobra.NoFileCompletions, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := profiled(r.profile, cmd.Name(), func() outcome { return a.copy(cmd.Context(), o, r) })
			a.out = &out
			return nil
		},
	}
	o.add(cmd, "what to do to the targets (default replace, of nothing but what copy has made)")
	r.add(cmd)
	return cmd
}

func (a *app) copy(ctx context.Context, o draftFlags, r runFlags) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	d, err := a.draft(stop.ctx, o, func(from, to draft.End) messages.PipelineID { return draft.PipelineName(from, to, o.schema) })
	if err != nil {
		return stop.failed(err)
	}
	doc, err := a.parseDraft(d.draft, d.text)
	if err != nil {
		return failed(err)
	}
	if o.mode == "" {
		r.guard = func(ctx context.Context, store statestore.Store) error { return a.spare(ctx, d.draft, doc, store) }
	}
	return a.runDocument(doc, "", r, stop)
}

// spare refuses to replace what this copy has not made.
func (a *app) spare(ctx context.Context, d draft.Draft, doc *config.Document, store statestore.Store) error {
	text, ok := d.Existing()
	if !ok {
		return nil
	}
	existing, err := a.parseDraft(d, text)
	if err != nil {
		return err
	}
	strangers, err := node.Strangers(ctx, doc, existing, store)
	if err != nil || len(strangers) == 0 {
		return err
	}
	const shown = 10
	list := strings.Join(strangers[:min(len(strangers), shown)], ", ")
	if len(strangers) > shown {
		list += ", .."
	}
	info, _ := messages.CodeDocConflict.Info()
	return messages.Failure{
		Code: info.Code, Kind: string(connectors.KindConfig), Where: messages.Place{Pipeline: doc.Pipeline, Stage: connectors.StageDestination},
		What: "these targets are there already, and this copy has not made them: " + list,
		Next: "Say what is to become of them: `--write-mode replace`, append or upsert; or copy into another `--schema`.",
	}
}
