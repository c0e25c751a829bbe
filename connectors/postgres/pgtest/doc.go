// Package pgtest starts PostgreSQL servers for tests and throws them away.
//
// A server is a real one: the programs of the newest installation that PATH,
// pg_config or /usr/lib/postgresql know. Its cluster is a folder of its own below
// the folder of temporary files, its port is free when it is chosen, everybody
// on this machine is trusted. PostgreSQL refuses to run as root: then the server
// runs as user postgres, or nobody.
//
// # Lifetime
//
// Shared is stopped by Main, what Start returns by the Cleanup of its test. Beside
// each server runs a watchdog that holds the read end of a pipe whose other end
// this process never closes before it is done: when the process dies, however it
// dies, the watchdog kills the server and removes its folder.
//
// No goroutine is left behind by any call, so that tests can look for their own.
//
// # Another server
//
// RB_TEST_POSTGRES, the URL of a superuser, stands in for Shared. What needs the
// machine of the server (its log, its processes) then fails.
package pgtest
