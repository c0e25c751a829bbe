package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/report"
	"rapidbyte.io/node/bench/internal/scenario"
)

func compareCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compare A B", Short: "Say what has changed between two artefacts, files or folders", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := artefact.Read(args[0])
			if err != nil {
				return err
			}
			b, err := artefact.Read(args[1])
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), report.Compare(a, b))
			return err
		},
	}
}

func reportCommand() *cobra.Command {
	var docs string
	cmd := &cobra.Command{
		Use: "report [ARTEFACT...]", Short: "Write docs/BENCHMARKS.md again, with what the artefacts have that is younger",
		RunE: func(_ *cobra.Command, args []string) error { return report.Docs(docs, args...) },
	}
	cmd.Flags().StringVar(&docs, "docs", "docs", "`folder` of the documents")
	return cmd
}

// list writes a table of scenarios and of peers.
func list(w io.Writer, all []*scenario.Scenario) error {
	for _, s := range all {
		var suites []string
		for _, name := range scenario.Suites {
			if _, ok := s.Suites[name]; ok {
				suites = append(suites, name)
			}
		}
		var targets []string
		for _, t := range s.Targets {
			targets = append(targets, t.ID)
		}
		if _, err := fmt.Fprintf(w, "%-24s %-15s %-12s %s\n", s.Name, strings.Join(suites, ","), strings.Join(slices.Compact(targets), ","), s.Title); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	for _, name := range peer.Names() {
		state := "absent"
		tool, err := peer.Find(name)
		switch {
		case err == nil:
			state = tool.Version
		case !errors.Is(err, exec.ErrNotFound):
			state = err.Error()
		}
		if _, err := fmt.Fprintf(w, "%-24s %s\n", name, state); err != nil {
			return err
		}
	}
	return nil
}
