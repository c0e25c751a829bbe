package postgres

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

func TestDeadPeersAreNoticed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c := Connection{Host: "h", User: "u", Database: "d", LockTimeout: time.Minute}
	for stage, want := range map[string]time.Duration{connectors.StageSource: 30 * time.Second, connectors.StageDestination: 90 * time.Second} {
		conn, err := dialerOf(t, c, stage).netDialer().DialContext(t.Context(), "tcp", l.Addr().String())
		require.NoError(t, err)
		raw, err := conn.(*net.TCPConn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
			require.NoError(t, err)
			require.EqualValues(t, want.Milliseconds(), got)
			alive, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
			require.NoError(t, err)
			require.Equal(t, 1, alive)
		}))
		require.NoError(t, conn.Close())
	}
}
