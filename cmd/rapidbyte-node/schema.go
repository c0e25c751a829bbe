package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
)

const schemaLong = `schema prints the JSON Schema of a pipeline document, for completion and checks in an
editor. With the YAML language server, put this line at the top of a document:

  # yaml-language-server: $schema=rapidbyte.schema.json`

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the document", Long: schemaLong,
		Example: "  rapidbyte-node schema > rapidbyte.schema.json", Args: noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			text, err := config.Schema(plugin.Builtins())
			out := outcome{
				summary: "the JSON Schema of a pipeline document", result: json.RawMessage(text),
				human: func(look) string { return string(text) },
			}
			if err != nil {
				out = failed(fmt.Errorf("make the schema: %w", err))
			}
			a.out = &out
			return nil
		},
	}
}

// shells are those that completion knows.
var shells = []string{"bash", "zsh", "fish", "powershell"}

const completionLong = `completion prints a script that completes commands, flags, documents and stream names.

  bash        source <(rapidbyte-node completion bash)
  zsh         rapidbyte-node completion zsh > "${fpath[1]}/_rapidbyte-node"
  fish        rapidbyte-node completion fish > ~/.config/fish/completions/rapidbyte-node.fish
  powershell  rapidbyte-node completion powershell | Out-String | Invoke-Expression`

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion " + strings.Join(shells, "|"), Short: "Print a completion script for a shell", Long: completionLong,
		ValidArgs: shells, DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && slices.Contains(shells, args[0]) {
				return nil
			}
			return usageError{what: cmd.Name() + " needs the name of a shell", next: "Use one of: " + strings.Join(shells, ", ")}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var b bytes.Buffer
			var err error
			switch root := cmd.Root(); args[0] {
			case "bash":
				err = root.GenBashCompletionV2(&b, true)
			case "zsh":
				err = root.GenZshCompletion(&b)
			case "fish":
				err = root.GenFishCompletion(&b, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(&b)
			}
			out := outcome{
				summary: "completion for " + args[0], result: map[string]string{"shell": args[0], "script": b.String()},
				human: func(look) string { return b.String() },
			}
			if err != nil {
				out = failed(fmt.Errorf("make the completion: %w", err))
			}
			a.out = &out
			return nil
		},
	}
}
