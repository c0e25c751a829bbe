package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rapidbyte.io/node/messages"
)

// outputMode says how results look.
type outputMode string

const (
	outputAuto  outputMode = "auto"  // colours and symbols where the terminal has them
	outputPlain outputMode = "plain" // ASCII, one line per event
	outputJSON  outputMode = "json"  // one envelope
)

// String implements pflag.Value.
func (m *outputMode) String() string { return string(*m) }

// Set implements pflag.Value.
func (m *outputMode) Set(s string) error {
	switch v := outputMode(s); v {
	case outputAuto, outputPlain, outputJSON:
		*m = v
		return nil
	}
	return fmt.Errorf("want auto, plain or json")
}

// Type implements pflag.Value.
func (m *outputMode) Type() string { return "auto|plain|json" }

// globalFlags are the flags of every command.
type globalFlags struct {
	output  outputMode
	report  string // path of the envelope; empty: none
	verbose int
	quiet   bool
}

const rootLong = `rapidbyte-node moves data as a pipeline document says, exactly once, and resumes
where it stopped.

Results go to stdout; progress, logs and errors go to stderr.`

const rootExample = `  rapidbyte-node copy --from postgres://app@db/shop --to duckdb:shop.duckdb
  rapidbyte-node check pipeline.yaml
  rapidbyte-node run pipeline.yaml
  rapidbyte-node run pipeline.yaml --stream orders --full-refresh
  rapidbyte-node run pipeline.yaml --output json --events events.ndjson`

// helpTemplate is cobra's, with the exit codes at the end of the commands that have
// their own.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}{{with index .Annotations "exit codes"}}
{{.}}
{{end}}`

var withExitCodes = map[string]string{"exit codes": exitTable()}

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "rapidbyte-node", Short: "Moves data as a pipeline document says",
		Long: rootLong, Example: rootExample, Annotations: withExitCodes,
		SilenceErrors: true, SilenceUsage: true, Version: "x", // the flag is ours: see versionText
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{what: "no command was given", next: "Use one of: " + strings.Join(commandNames(cmd), ", ")}
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetHelpTemplate(helpTemplate)
	root.SetVersionTemplate(versionText(version()))
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.VarP(&a.flags.output, "output", "o", "how results look")
	f.StringVar(&a.flags.report, "report", "", "also write the JSON envelope to this `file`")
	f.CountVarP(&a.flags.verbose, "verbose", "v", "say more; -vv says all")
	f.BoolVarP(&a.flags.quiet, "quiet", "q", false, "say nothing but errors; with --output json, the result too")
	root.MarkFlagsMutuallyExclusive("verbose", "quiet")
	root.AddCommand(a.runCommand(), a.copyCommand(), a.initCommand(), a.checkCommand(), a.discoverCommand(), a.dlqCommand(), a.stateCommand(), a.runsCommand(), a.schemaCommand(), a.versionCommand(), a.completionCommand(), exitCodesTopic())
	root.SetHelpCommand(helpCommand(root))
	for _, c := range append(root.Commands(), root) {
		_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"auto", "plain", "json"}, cobra.ShellCompDirectiveNoFileComp))
	}
	return root
}

// exitCodesTopic is `help exit-codes`.
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use: "exit-codes", Short: "What each exit code means",
		Long: "The exit code is the class of the first cause.\n\n" + exitTable() + "\n\nEvery error also has a code, RB-xxxx; docs/ERRORS.md lists them all.",
	}
}

// helpCommand is cobra's, except that an unknown topic is an error.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about a command or a topic",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil || found == nil || len(rest) > 0 {
				return unknownCommand(root, strings.Join(args, " "))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return append(commandNames(root), "exit-codes"), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// usageError says that the command line could not be understood.
type usageError struct{ what, next string }

// Error implements error.
func (e usageError) Error() string { return e.what }

// usageOf turns what cobra reports into a failure that says what to do.
func usageOf(cmd *cobra.Command, err error) messages.Failure {
	u, ok := err.(usageError) //nolint:errorlint // never wrapped: cobra hands errors through
	if !ok {
		u = usageError{what: err.Error()}
	}
	return messages.Failure{
		Code: messages.CodeUsage, Kind: "config", What: u.what,
		Next: cmp.Or(u.next, "See `"+cmd.CommandPath()+" --help`."),
	}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	e := usageError{what: fmt.Sprintf("unknown command %q", name), next: "Use one of: " + strings.Join(commandNames(cmd), ", ")}
	if near := nearest(name, commandNames(cmd)); near != "" {
		e.next = fmt.Sprintf("Did you mean `%s %s`?", cmd.CommandPath(), near)
	} else if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		e.next = fmt.Sprintf("Did you mean `%s run %s`?", cmd.CommandPath(), name)
	}
	return e
}

// flagError names the flag that is nearest to an unknown one.
func flagError(cmd *cobra.Command, err error) error {
	e := usageError{what: err.Error()}
	missing, ok := err.(*pflag.NotExistError) //nolint:errorlint // pflag does not wrap
	if !ok || missing.GetSpecifiedShortnames() != "" {
		return e
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := nearest(missing.GetSpecifiedName(), names); near != "" {
		e.next = fmt.Sprintf("Did you mean `--%s`?", near)
	}
	return e
}

// nearest returns the name that s was probably meant to be, "" when none is near.
func nearest(s string, names []string) string {
	const farthest = 2
	best := ""
	at := farthest + 1
	for _, n := range slices.Sorted(slices.Values(names)) {
		d := levenshtein.ComputeDistance(strings.ToLower(s), n)
		if len(s) > farthest && strings.HasPrefix(n, strings.ToLower(s)) {
			d = 1
		}
		if d < at && d < len(n) {
			best, at = n, d
		}
	}
	return best
}

// commandNames lists what can be run.
func commandNames(root *cobra.Command) []string {
	var out []string
	for _, c := range root.Commands() {
		if c.Runnable() && !c.Hidden {
			out = append(out, c.Name())
		}
	}
	return out
}

// commandName is the path of a command without the program: "run", "dlq list".
func commandName(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return cmd.Name()
	}
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// oneDocument is the Args of the commands that take a pipeline document.
func oneDocument(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usageError{what: cmd.Name() + " needs a pipeline document", next: "For example: `" + cmd.CommandPath() + " pipeline.yaml`; `-` reads it from stdin."}
	case len(args) > 1:
		return usageError{what: fmt.Sprintf("%s takes one pipeline document, %d were given", cmd.Name(), len(args)), next: "Run them one after the other."}
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{what: fmt.Sprintf("%s takes no argument, found %q", cmd.Name(), args[0])}
	}
	return nil
}

// documents completes the names of YAML files.
func documents(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// asked returns the output mode of a command line that could not be parsed: who wants
// JSON wants it for errors too.
func asked(args []string, parsed outputMode) outputMode {
	for i, s := range args {
		for _, name := range []string{"--output", "-o"} {
			v, ok := strings.CutPrefix(s, name+"=")
			if !ok && s == name && i+1 < len(args) {
				v, ok = args[i+1], true
			}
			var m outputMode
			if ok && m.Set(v) == nil {
				parsed = m
			}
		}
	}
	return parsed
}
