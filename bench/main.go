// Command bench measures this node and its peers.
//
//	go run ./bench list                              the scenarios, and which peers are here
//	go run ./bench run --suite quick                 under five minutes
//	go run ./bench run --scenario 'upsert-*' --rounds 9
//	go run ./bench compare bench/out/A bench/out/B   what has changed, in paired ratios
//	go run ./bench report bench/out/A                docs/BENCHMARKS.md again
//
// README.md beside it says how it measures.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "bench", Short: "Measure this node and its peers", SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(runCommand(), compareCommand(), reportCommand(), listCommand())
	return root
}
