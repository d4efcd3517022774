#!/usr/bin/env perl
# Add a job from another language: one line of nine cells, appended under the queue's lock.
#
#     ./append_from_perl.pl send_email '{"to": "ana@example.com"}'
#
# Prints the job's id when the line is on the disk; else dies, and has added nothing. The JSON is
# taken as it is: `dbbasic-queue doctor` names a line that holds none. Core modules only; any
# language that can call flock(2) does it the same way.
use strict;
use warnings;
use Cwd qw(realpath);
use Fcntl qw(:DEFAULT :flock :seek);
use File::Basename qw(dirname);
use IO::Handle;
use Time::HiRes qw(gettimeofday);

my $queue = $ENV{DBBASIC_QUEUE} // "data/queue.tsv";
my ($type, $payload) = @ARGV;
die "usage: $0 TYPE [JSON]\n" unless defined $type;
$payload = "null" unless length($payload // "");
my $columns = join "\t", qw(id type payload status created_at run_at attempts error result);

die "not a job type: $type\n" unless $type =~ /\A[A-Za-z0-9_.:-]{1,100}\z/;
die "a payload is one line without tabs\n" if $payload =~ /[\x00-\x1f\x7f]/;

mkdir dirname $queue;
$queue = realpath $queue if -e $queue;    # the lock is beside the real file
umask(umask() | 07);                      # payloads are for the group at most
sysopen(my $lock, "$queue.lock", O_RDWR | O_CREAT) or die "$queue.lock: $!\n";
flock($lock, LOCK_EX) or die "$queue.lock: $!\n";    # held until this process ends

sysopen(my $file, $queue, O_RDWR | O_CREAT | O_APPEND) or die "$queue: $!\n";
my $size = -s $file;
my $text = "";
if ($size == 0) {
    $text = "$columns\n";
} else {
    sysseek($file, 0, SEEK_SET);
    sysread($file, my $head, length $columns);
    die "$queue is not a queue\n" unless $head eq $columns;
    sysseek($file, -1, SEEK_END);
    sysread($file, my $last, 1);
    die "$queue ends in a torn line: see dbbasic-queue doctor\n" unless $last eq "\n";
}

my ($now, $us) = gettimeofday();    # microseconds: ids sort by time
my $id = sprintf "%013x%03x", $now * 1_000_000 + $us, int rand 4096;
$text .= join("\t", $id, $type, $payload, "pending", $now, $now, 0, "", "") . "\n";

unless ((syswrite($file, $text) // -1) == length $text and $file->sync) {
    my $why = $!;
    truncate $file, $size;          # nobody else has written: we hold the lock
    die "$queue could not be written: $why\n";
}
print "$id\n";
