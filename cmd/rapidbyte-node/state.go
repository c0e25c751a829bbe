package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
)

const stateLong = `state looks at how far a pipeline is, and changes it: from which point the next run
reads. The destination is the authority; the state store is a copy of its receipts.

A state store in a file belongs to one process at a time: while a run has it, these
commands are refused. Nothing of a target is ever changed by them.`

func (a *app) stateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "state", Short: "Look at and change how far a pipeline is", Long: stateLong,
		Example: "  rapidbyte-node state show pipeline.yaml\n  rapidbyte-node state rewind pipeline.yaml --stream orders --to 3\n  rapidbyte-node state reset pipeline.yaml --stream orders --yes",
		Args:    subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{what: "state needs a command", next: "Use one of: " + strings.Join(commandNames(cmd), ", ")}
		},
	}
	cmd.AddCommand(a.stateShowCommand(), a.stateResetCommand(), a.stateRewindCommand(), a.stateExportCommand(), a.stateImportCommand(), a.stateRebuildCommand())
	return cmd
}

// ledger opens the state of a document and does one thing with it.
func (a *app) ledger(ctx context.Context, path string, o node.LedgerOptions, do func(context.Context, *node.Ledger) (outcome, error)) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	doc, err := a.load(path)
	if err != nil {
		return failed(err)
	}
	return stop.within(func(ctx context.Context) (out outcome) {
		l, err := a.opened(ctx, doc, o)
		if err != nil {
			return stop.failed(err)
		}
		defer func() {
			if err := l.Close(); err != nil {
				list, _ := failuresOf(err)
				out.failures = append(out.failures, list...)
			}
		}()
		if out, err = do(ctx, l); err != nil {
			return stop.failed(err)
		}
		return out
	}).about(path)
}

func (a *app) opened(ctx context.Context, doc *config.Document, o node.LedgerOptions) (*node.Ledger, error) {
	if missing := doc.Unavailable(); len(missing) > 0 {
		return nil, config.Problems(missing)
	}
	return node.OpenLedger(ctx, doc, o)
}

const stateShowLong = `show lists every stream and task: the commits that the state store and the destination
have of it, how many the store is behind, the position as the source wrote it, the rows
so far, and what the next run has been ordered to do. It fences nobody and changes
nothing.`

func (a *app) stateShowCommand() *cobra.Command {
	var streams []string
	var o node.LedgerOptions
	cmd := &cobra.Command{
		Use: "show DOCUMENT", Short: "Show how far each stream is", Long: stateShowLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node state show pipeline.yaml --stream orders\n  rapidbyte-node state show pipeline.yaml --offline",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.ledger(cmd.Context(), args[0], o, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				r, err := l.Report(ctx, streams)
				if err != nil && len(r.Loads) == 0 {
					return outcome{}, err
				}
				v := stateShow{r}
				out := outcome{summary: v.line(), result: r, human: v.text}
				if err != nil { // the store's half is still worth seeing
					out.failures, _ = failuresOf(err)
				}
				return out, nil
			})
			a.out = &out
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&streams, "stream", nil, "only this `stream`; may be repeated")
	cmd.Flags().BoolVar(&o.Offline, "offline", false, "do not look at the destination")
	_ = cmd.RegisterFlagCompletionFunc("stream", a.completeStreams)
	return cmd
}

const stateResetLong = `reset orders that the next run starts streams over: it begins new loads and reads all rows
again, as run --full-refresh does. Without --stream, all of them. Where the write mode is
append, rows that are in the target are there twice then, unless it is emptied.

It says what will happen and asks first. Who cannot be asked adds --yes; without it
nothing is changed, and the exit code is 64. While a run owns the pipeline
it is refused (RB-6002).`

func (a *app) stateResetCommand() *cobra.Command {
	var streams []string
	var yes bool
	cmd := &cobra.Command{
		Use: "reset DOCUMENT", Short: "Have the next run start streams over", Long: stateResetLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node state reset pipeline.yaml --stream orders --yes",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				changes, err := l.Reset(ctx, streams)
				if err != nil {
					return outcome{}, err
				}
				plan, ok := a.agreed(yes, stateChange{Changes: changes}.outcome(), "Start over?")
				if !ok {
					return plan, nil
				}
				if changes, err = l.ApplyReset(ctx, streams); err != nil {
					return outcome{}, err
				}
				return stateChange{Applied: true, Changes: changes}.outcome(), nil
			})
			a.out = &out
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&streams, "stream", nil, "only this `stream`; may be repeated")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.RegisterFlagCompletionFunc("stream", a.completeStreams)
	return cmd
}

const stateRewindLong = `rewind orders that the next run reads a stream on from an earlier checkpoint. Without --to
it lists those that are kept, newest first: the last one of each owner and each hour. Rows
behind that checkpoint are read and written again: with upsert the target stays exact, with
append they are in it twice. A finished load cannot be rewound; reset starts it over.

It says what will happen and asks first. Who cannot be asked adds --yes; without it
nothing is changed, and the exit code is 64. While a run owns the pipeline
it is refused (RB-6002).`

func (a *app) stateRewindCommand() *cobra.Command {
	var stream string
	var to int
	var yes bool
	cmd := &cobra.Command{
		Use: "rewind DOCUMENT", Short: "Have the next run read on from an earlier checkpoint", Long: stateRewindLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node state rewind pipeline.yaml --stream orders\n  rapidbyte-node state rewind pipeline.yaml --stream orders --to 3 --yes",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			if stream == "" {
				return usageError{what: "rewind needs a stream", next: "Add `--stream NAME`; `rapidbyte-node state show " + argument(args[0]) + "` lists them."}
			}
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				if !cmd.Flags().Changed("to") {
					load, moments, err := l.Moments(ctx, stream)
					if err != nil {
						return outcome{}, err
					}
					return stateMoments{Stream: load.Name, Moments: append([]node.Moment{}, moments...)}.outcome(), nil
				}
				c, err := l.Rewind(ctx, stream, to)
				if err != nil {
					return outcome{}, err
				}
				plan, ok := a.agreed(yes, stateChange{Changes: []node.Change{c}}.outcome(), "Rewind?")
				if !ok {
					return plan, nil
				}
				if c, err = l.ApplyRewind(ctx, stream, c.Moment); err != nil {
					return outcome{}, err
				}
				return stateChange{Applied: true, Changes: []node.Change{c}}.outcome(), nil
			})
			a.out = &out
			return nil
		},
	}
	cmd.Flags().StringVar(&stream, "stream", "", "this `stream`")
	cmd.Flags().IntVar(&to, "to", 0, "the `number` of a kept checkpoint")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.RegisterFlagCompletionFunc("stream", a.completeStreams)
	return cmd
}

// agreed reports whether plan may be carried out. If not, the outcome says what would
// happen and why it did not.
func (a *app) agreed(yes bool, plan outcome, question string) (outcome, bool) {
	if yes {
		return plan, true
	}
	if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // a descriptor is small
		_, _ = io.WriteString(a.stderr, plan.human(a.look(a.stderr))) // who does not see it will not agree
		plan.human = nil
	}
	err := a.confirm(false, question)
	if err != nil {
		plan.failures, _ = failuresOf(err)
	}
	return plan, err == nil
}

// documentAndFile is the Args of the commands that take a file besides.
func documentAndFile(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return oneDocument(cmd, args)
	case 1:
		return usageError{what: cmd.Name() + " needs a file", next: "For example: `" + cmd.CommandPath() + " " + argument(args[0]) + " state.json`."}
	case 2:
		return nil
	}
	return usageError{what: fmt.Sprintf("%s takes a document and a file, %d arguments were given", cmd.Name(), len(args))}
}

const stateExportLong = `export writes the whole state of the pipeline as versioned JSON with a checksum: receipts,
finished loads, orders, kept checkpoints and runs. FILE - is stdout. It holds the values
of cursor columns, and no credentials.`

func (a *app) stateExportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export DOCUMENT FILE", Short: "Write the whole state to a file", Long: stateExportLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node state export pipeline.yaml state.json",
		Args:    documentAndFile, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{Offline: true}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				e, err := l.Export(ctx)
				if err != nil {
					return outcome{}, err
				}
				text, err := e.Encode()
				if err != nil {
					return outcome{}, err
				}
				r := stateCarried{Pipeline: e.Pipeline, Receipts: len(e.Receipts), Finished: len(e.Finished), Runs: len(e.Runs), File: args[1], did: "exported"}
				out := outcome{summary: r.line(), result: r, human: r.text}
				if args[1] == "-" {
					out.result, out.human = e, func(look) string { return string(text) }
					return out, nil
				}
				if err := writeAtomically(args[1], text); err != nil {
					return outcome{}, outputFailure("write the state", args[1], err)
				}
				return out, nil
			})
			a.out = &out
			return nil
		},
	}
}

const stateImportLong = `import puts an exported state into the document's state store, under a fresh epoch, and
makes that store the owner at the destination: the one that was exported from cannot run
the pipeline any more. A store that has state of the pipeline already is refused without
--force. The next run compares with the destination, as always.`

func (a *app) stateImportCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "import DOCUMENT FILE", Short: "Take an exported state over", Long: stateImportLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node state import pipeline.yaml state.json",
		Args:    documentAndFile, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{Offline: true, Create: true}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				e, err := a.exported(args[1])
				if err != nil {
					return outcome{}, node.UnreadableState("", args[1], err)
				}
				if err := l.Import(ctx, e, force); err != nil {
					return outcome{}, err
				}
				r := stateCarried{Pipeline: e.Pipeline, Receipts: len(e.Receipts), Finished: len(e.Finished), Runs: len(e.Runs), File: args[1], did: "imported"}
				return outcome{summary: r.line(), result: r, human: r.text}, nil
			})
			a.out = &out
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace state that is there")
	return cmd
}

// exported reads the file of an import; - is stdin.
func (a *app) exported(path string) (node.Exported, error) {
	text, err := os.ReadFile(path)
	if path == "-" {
		text, err = io.ReadAll(a.stdin)
	}
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return node.Exported{}, err
	}
	return node.DecodeState(text)
}

const stateRebuildLong = `rebuild makes the state anew from the receipts of the destination, and the state store its
owner there, as run --rebuild-state does before it runs. It is for a state store that is
lost or damaged, and for a destination that was restored as a whole: what came after is
read and written again. Kept checkpoints and orders are dropped. A damaged store is set
aside.`

func (a *app) stateRebuildCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rebuild DOCUMENT", Short: "Make the state anew from the destination's receipts", Long: stateRebuildLong, Annotations: withExitCodes,
		Example: "  rapidbyte-node state rebuild pipeline.yaml",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{Create: true, Rebuild: true}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				r, err := l.Rebuild(ctx)
				if err != nil {
					return outcome{}, err
				}
				v := stateRebuilt{r}
				return outcome{summary: v.line(), result: r, human: v.text}, nil
			})
			a.out = &out
			return nil
		},
	}
}

// streamsOf lists the names of changes.
func streamsOf(changes []node.Change) string {
	var names []string
	for _, c := range changes {
		names = append(names, escape(c.Name))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// stateCarried is the result of export and import in the envelope.
type stateCarried struct {
	Pipeline messages.PipelineID `json:"pipeline"`
	Receipts int                 `json:"receipts"`
	Finished int                 `json:"finished"`
	Runs     int                 `json:"runs"`
	File     string              `json:"file"`
	did      string
}

func (r stateCarried) line() string {
	return fmt.Sprintf("%s %s, %s and %s", r.did, count(int64(r.Receipts), "receipt"), count(int64(r.Finished), "finished load"), count(int64(r.Runs), "run"))
}

func (r stateCarried) text(l look) string {
	return fmt.Sprintf("%s %s  %s\n", l.good(), l.bold(escape(string(r.Pipeline))), r.line())
}
