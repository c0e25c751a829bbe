package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
)

const dlqLong = `dlq looks after the rows that a destination has set aside because of
on_data_error: dlq. Each is kept with the reason, as it arrived.

Where nothing is selected, a command is about all dead letters of the pipeline.`

// deadFlags select dead letters.
type deadFlags struct {
	stream string
	reason string
	limit  int64
}

func (f *deadFlags) add(cmd *cobra.Command, a *app, limit int64) {
	cmd.Flags().StringVar(&f.stream, "stream", "", "only of this `stream`")
	cmd.Flags().StringVar(&f.reason, "reason", "", "only with this `code` of a reason")
	cmd.Flags().Int64Var(&f.limit, "limit", limit, "at most so many, oldest first; 0: all")
	_ = cmd.RegisterFlagCompletionFunc("stream", a.completeStreams)
}

func (a *app) dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dlq", Short: "Look after rows that were set aside", Long: dlqLong,
		Example: "  rapidbyte-node dlq list pipeline.yaml\n  rapidbyte-node dlq show pipeline.yaml 3f9c2b1a7d10\n  rapidbyte-node dlq replay pipeline.yaml --stream orders",
		Args:    subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{what: "dlq needs a command", next: "Use one of: " + strings.Join(commandNames(cmd), ", ")}
		},
	}
	cmd.AddCommand(a.dlqListCommand(), a.dlqShowCommand(), a.dlqExportCommand(), a.dlqReplayCommand(), a.dlqPurgeCommand())
	return cmd
}

// subcommand is the Args of a command that is only a group.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(cmd, args[0])
	}
	return nil
}

// documentAndIDs is the Args of the commands that take dead letters.
func documentAndIDs(least int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return oneDocument(cmd, args)
		}
		if len(args)-1 < least {
			return usageError{what: cmd.Name() + " needs the ID of a dead letter", next: "`rapidbyte-node dlq list " + argument(args[0]) + "` lists them."}
		}
		return nil
	}
}

// dead opens the dead letters of a document and does one thing with them.
func (a *app) dead(ctx context.Context, args []string, f deadFlags, do func(context.Context, deadLetters) (outcome, error)) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	doc, err := a.load(args[0])
	if err != nil {
		return failed(err)
	}
	box, err := a.boxes(doc)
	if err != nil {
		return failed(err)
	}
	d := deadLetters{doc: doc, box: box, path: args[0], query: connectors.DeadLetterQuery{
		Pipeline: doc.Pipeline, Stream: streamOf(doc, f.stream), Reason: f.reason, IDs: args[1:], Limit: f.limit,
	}}
	return stop.within(func(ctx context.Context) outcome {
		out, err := do(ctx, d)
		if err != nil {
			return stop.failed(atDestination(err, doc))
		}
		return out
	})
}

// streamOf is the stream that name means in the document, or name itself: dead letters
// stay when their stream has left.
func streamOf(doc *config.Document, name string) messages.StreamID {
	for _, s := range doc.Source.Streams {
		if id := messages.StreamID(s.Name); name != "" && doc.Names(name, id) {
			return id
		}
	}
	return messages.StreamID(name)
}

func atDestination(err error, doc *config.Document) error {
	if p, ok := errors.AsType[config.Problems](err); ok {
		return p
	}
	return connectors.FailureOf(err, messages.Place{Pipeline: doc.Pipeline, Stage: connectors.StageDestination})
}

// deadLetters are what one command is about.
type deadLetters struct {
	doc   *config.Document
	box   connectors.DeadLetterBox
	path  string
	query connectors.DeadLetterQuery
}

// find returns what the query selects; each ID that was asked for must be there.
func (d deadLetters) find(ctx context.Context) ([]connectors.DeadLetter, error) {
	found, err := d.box.DeadLetters(ctx, d.query)
	if err != nil {
		return nil, err
	}
	for _, id := range d.query.IDs {
		if d.query.Limit == 0 && !slices.ContainsFunc(found, func(l connectors.DeadLetter) bool { return l.ID == id }) {
			return nil, messages.Failure{
				Code: messages.CodeUsage, Kind: string(connectors.KindConfig), What: fmt.Sprintf("there is no dead letter %q", id),
				Where: messages.Place{Pipeline: d.doc.Pipeline, Stream: d.query.Stream},
				Next:  "`rapidbyte-node dlq list " + argument(d.path) + "` lists them.",
			}
		}
	}
	return found, nil
}

func (a *app) dlqListCommand() *cobra.Command {
	var f deadFlags
	cmd := &cobra.Command{
		Use: "list DOCUMENT [ID]...", Short: "List them, oldest first", Annotations: withExitCodes,
		Example: "  rapidbyte-node dlq list pipeline.yaml --stream orders --limit 0",
		Args:    documentAndIDs(0), ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.dead(cmd.Context(), args, f, func(ctx context.Context, d deadLetters) (outcome, error) {
				found, err := d.find(ctx)
				if err != nil {
					return outcome{}, err
				}
				r := deadList{Pipeline: d.doc.Pipeline, Letters: append([]connectors.DeadLetter{}, found...)}
				r.More = f.limit > 0 && int64(len(found)) == f.limit
				return outcome{summary: r.line(), result: r, human: r.text}, nil
			})
			a.out = &out
			return nil
		},
	}
	const limit = 100
	f.add(cmd, a, limit)
	return cmd
}

func (a *app) dlqShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show DOCUMENT ID...", Short: "Show all about some, with the row", Annotations: withExitCodes,
		Example: "  rapidbyte-node dlq show pipeline.yaml 3f9c2b1a7d10",
		Args:    documentAndIDs(1), ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.dead(cmd.Context(), args, deadFlags{}, func(ctx context.Context, d deadLetters) (outcome, error) {
				found, err := d.find(ctx)
				if err != nil {
					return outcome{}, err
				}
				r := deadShow{Pipeline: d.doc.Pipeline, Letters: []deadRow{}}
				for _, l := range found {
					r.Letters = append(r.Letters, rowOf(l))
				}
				return outcome{summary: count(int64(len(found)), "dead letter"), result: r, human: r.text}, nil
			})
			a.out = &out
			return nil
		},
	}
}

const replayLong = `replay writes dead letters into their targets again, with the write mode of their load.
What is written is no dead letter any more; what is refused again stays, and the exit
code is 10. The pipeline must not run meanwhile.`

func (a *app) dlqReplayCommand() *cobra.Command {
	var f deadFlags
	cmd := &cobra.Command{
		Use: "replay DOCUMENT [ID]...", Short: "Try to write them again", Long: replayLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node dlq replay pipeline.yaml --reason 23503",
		Args:    documentAndIDs(0), ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.dead(cmd.Context(), args, f, a.replay)
			a.out = &out
			return nil
		},
	}
	f.add(cmd, a, 0)
	return cmd
}

// replay holds the pipeline as a run does: the two never write side by side.
func (a *app) replay(ctx context.Context, d deadLetters) (out outcome, err error) {
	if missing := d.doc.Unavailable(); len(missing) > 0 {
		return outcome{}, config.Problems(missing)
	}
	store, err := node.OpenStore(ctx, d.doc, false)
	if err != nil {
		return outcome{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	ctx, done, err := node.Own(ctx, store, d.doc.Pipeline)
	if err != nil {
		return outcome{}, err
	}
	defer done()
	r, err := d.box.Replay(ctx, d.query)
	if err != nil {
		return outcome{}, err
	}
	res := deadReplay{Pipeline: d.doc.Pipeline, Replayed: r}
	out = outcome{summary: res.line(), result: res, human: res.text}
	if r.Left > 0 {
		out.failures = []messages.Failure{{
			Code: messages.CodeRowRefused, Kind: string(connectors.KindData), Where: messages.Place{Pipeline: d.doc.Pipeline, Stream: d.query.Stream},
			What: "refused again and left as they are: " + count(r.Left, "dead letter"),
			Next: "`rapidbyte-node dlq list " + argument(d.path) + "` says why; mend the rows or the target.",
		}}
	}
	return out, nil
}

func (a *app) dlqPurgeCommand() *cobra.Command {
	var f deadFlags
	var yes bool
	cmd := &cobra.Command{
		Use: "purge DOCUMENT [ID]...", Short: "Remove them for good", Annotations: withExitCodes,
		Long:    "purge removes dead letters; their rows are gone then. It asks first, or wants --yes.",
		Example: "  rapidbyte-node dlq purge pipeline.yaml --stream orders --yes",
		Args:    documentAndIDs(0), ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.dead(cmd.Context(), args, f, func(ctx context.Context, d deadLetters) (outcome, error) {
				if err := a.confirm(yes, "Remove "+d.selected()+" for good?"); err != nil {
					return outcome{}, err
				}
				n, err := d.box.Purge(ctx, d.query)
				if err != nil {
					return outcome{}, err
				}
				r := deadPurge{Pipeline: d.doc.Pipeline, Removed: n}
				return outcome{summary: r.line(), result: r, human: r.text}, nil
			})
			a.out = &out
			return nil
		},
	}
	f.add(cmd, a, 0)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// selected describes what the query selects.
func (d deadLetters) selected() string {
	s := "all dead letters"
	if n := len(d.query.IDs); n > 0 {
		s = count(int64(n), "dead letter")
	}
	if d.query.Limit > 0 {
		s = "at most " + count(d.query.Limit, "dead letter")
	}
	if d.query.Reason != "" {
		s += " with reason " + escape(d.query.Reason)
	}
	if d.query.Stream != "" {
		s += " of stream " + escape(string(d.query.Stream))
	}
	return s + " of pipeline " + escape(string(d.doc.Pipeline))
}
