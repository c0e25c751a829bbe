package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
)

const runsLong = `runs lists what became of the runs of a pipeline, as its state store has recorded it. A
run that failed or was stopped is open: the next one goes on under its ID.`

func (a *app) runsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "runs", Short: "Look at the runs of a pipeline", Long: runsLong,
		Example: "  rapidbyte-node runs list pipeline.yaml\n  rapidbyte-node runs show pipeline.yaml",
		Args:    subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{what: "runs needs a command", next: "Use one of: " + strings.Join(commandNames(cmd), ", ")}
		},
	}
	cmd.AddCommand(a.runsListCommand(), a.runsShowCommand())
	return cmd
}

func (a *app) runsListCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "list DOCUMENT", Short: "List them, newest first", Annotations: withExitCodes,
		Example: "  rapidbyte-node runs list pipeline.yaml --limit 5",
		Args:    oneDocument, ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError{what: fmt.Sprintf("--limit %d is less than nothing", limit)}
			}
			if limit == 0 {
				limit = statestore.RunsKept
			}
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{Offline: true}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				found, err := l.Runs(ctx, limit)
				if err != nil {
					return outcome{}, err
				}
				r := runList{found}
				return outcome{summary: r.line(), result: r, human: r.text}, nil
			})
			a.out = &out
			return nil
		},
	}
	const few = 20
	cmd.Flags().IntVar(&limit, "limit", few, "at most so many; 0: all that are kept")
	return cmd
}

func (a *app) runsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show DOCUMENT [RUN]", Short: "Show one, or the newest", Annotations: withExitCodes,
		Long:    "show tells all about one run. RUN is its ID or the beginning of it; without it, the newest.",
		Example: "  rapidbyte-node runs show pipeline.yaml 01JD9KQ2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 2 { //nolint:mnd // a document and a run
				return usageError{what: fmt.Sprintf("show takes a document and a run, %d arguments were given", len(args))}
			}
			return oneDocument(cmd, args[:min(len(args), 1)])
		},
		ValidArgsFunction: documents,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := a.ledger(cmd.Context(), args[0], node.LedgerOptions{Offline: true}, func(ctx context.Context, l *node.Ledger) (outcome, error) {
				found, err := l.Runs(ctx, statestore.RunsKept)
				if err != nil {
					return outcome{}, err
				}
				run, err := oneRun(found, append(args, "")[1], args[0])
				if err != nil {
					return outcome{}, err
				}
				v := runShow{run}
				return outcome{summary: v.line(), result: run, human: v.text}, nil
			})
			a.out = &out
			return nil
		},
	}
}

// oneRun returns the run that id means: the newest for none.
func oneRun(found []statestore.Run, id, path string) (statestore.Run, error) {
	var fits []statestore.Run
	for _, r := range found {
		if strings.HasPrefix(r.ID, strings.ToUpper(id)) {
			fits = append(fits, r)
		}
	}
	refuse := func(what string) error {
		return messages.Failure{Code: messages.CodeUsage, Kind: string(connectors.KindConfig), What: what, Next: messages.Command("runs", "list", path) + " lists them."}
	}
	switch {
	case len(found) == 0:
		return statestore.Run{}, refuse("the pipeline has not run yet")
	case len(fits) == 0:
		return statestore.Run{}, refuse(fmt.Sprintf("there is no run %q", id))
	case len(fits) > 1 && id != "":
		return statestore.Run{}, refuse(fmt.Sprintf("%d runs begin with %q", len(fits), id))
	}
	return fits[0], nil
}

// runList is the result of runs list in the envelope.
type runList struct {
	Runs []statestore.Run `json:"runs"`
}

func (r runList) line() string {
	if len(r.Runs) == 0 {
		return "no runs"
	}
	return count(int64(len(r.Runs)), "run")
}

func (r runList) text(l look) string {
	rows := make([][]string, 0, len(r.Runs))
	for _, run := range r.Runs {
		why, _, _ := strings.Cut(run.Why, "\n")
		rows = append(rows, []string{
			runGlyph(run, l), l.bold(run.ID), string(run.State), l.dim(run.Started.Format(time.RFC3339)), l.dim(runEnd(run)),
			fmt.Sprintf("epoch %d", run.Epoch), string(run.Code), l.cut(escape(why), 2*nameMax),
		})
	}
	return table("", rows) + r.line() + "\n"
}

func runGlyph(r statestore.Run, l look) string {
	switch r.State {
	case messages.RunCompleted:
		return l.good()
	case messages.RunFailed:
		return l.bad()
	case messages.RunDrained, messages.RunRunning:
	}
	return l.warn()
}

func runEnd(r statestore.Run) string {
	if r.Ended.IsZero() {
		return "open"
	}
	return r.Ended.Format(time.RFC3339)
}

// runShow is what runs show has to say.
type runShow struct{ statestore.Run }

func (r runShow) line() string { return "run " + r.ID + " " + string(r.State) }

func (r runShow) text(l look) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s  %s\n", runGlyph(r.Run, l), l.bold(r.ID), r.State)
	line := func(name, text string) {
		if text != "" {
			const indent = "           "
			fmt.Fprintf(&b, "  %s%s\n", l.dim(pad(name, len(indent)-2)), strings.ReplaceAll(escapeLines(text), "\n", "\n"+indent))
		}
	}
	line("started", r.Started.Format(time.RFC3339))
	if r.Ended.IsZero() {
		line("ended", "it is open: the next run goes on under its ID")
	} else {
		line("ended", r.Ended.Format(time.RFC3339)+", after "+took(r.Ended.Sub(r.Started)))
	}
	line("epoch", fmt.Sprint(r.Epoch))
	line("code", string(r.Code))
	line("why", r.Why)
	return b.String()
}
