// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a machine that runs a single test: run /test, print its
 * exit status, and turn the machine off.
 */
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	int status = -1;
	pid_t pid;

	if (mount("proc", "/proc", "proc", 0, NULL) ||
	    mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL))
		perror("init: mount");

	pid = fork();
	if (!pid) {
		execl("/test", "/test", NULL);
		perror("init: /test");
		_exit(127);
	}
	/* There may be other children that are reaped here */
	while (wait(&status) != pid)
		;
	printf("init: the test has ended with %d\n",
	       WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 1;
}
