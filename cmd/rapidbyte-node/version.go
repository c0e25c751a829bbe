package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// release is set by the linker: -ldflags "-X main.release=v1.2.3".
var release string

// versionInfo is the result of version in the envelope.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source; "+dirty" when it was changed
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Tags     string `json:"tags,omitempty"`
	DuckDB   string `json:"duckdb,omitempty"` // the engine of sql and duckdb
	Arrow    string `json:"arrow,omitempty"`
}

func version() versionInfo {
	v := versionInfo{Version: cmp.Or(release, "devel"), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if main := info.Main.Version; release == "" && main != "" && main != "(devel)" {
		v.Version = main
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value + v.Revision
		case "vcs.modified":
			if s.Value == "true" {
				v.Revision += "+dirty"
			}
		case "-tags":
			v.Tags = s.Value
		}
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "github.com/duckdb/duckdb-go/v2":
			v.DuckDB = duckVersion(d.Version)
		case "github.com/apache/arrow-go/v18":
			v.Arrow = d.Version
		}
	}
	return v
}

// duckVersion reads the engine's version out of its Go module's: v2.10506.0 is v1.5.6.
func duckVersion(module string) string {
	parts := strings.Split(module, ".")
	if len(parts) < 2 {
		return module
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n < 10000 {
		return module
	}
	return fmt.Sprintf("v%d.%d.%d", n/10000, n/100%100, n%100)
}

func versionText(v versionInfo) string {
	rows := [][]string{{"rapidbyte-node", v.Version}}
	for _, r := range [][]string{
		{"revision", v.Revision},
		{"go", v.Go + " " + v.Platform},
		{"tags", v.Tags},
		{"duckdb", v.DuckDB},
		{"arrow", v.Arrow},
	} {
		if r[1] != "" {
			rows = append(rows, r)
		}
	}
	return table("", rows)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := version()
			a.out = &outcome{
				summary: "rapidbyte-node " + v.Version, result: v,
				human: func(look) string { return versionText(v) },
			}
			return nil
		},
	}
}
