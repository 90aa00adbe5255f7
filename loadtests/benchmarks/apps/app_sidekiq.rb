# Sidekiq: its jobs for the benchmark, and its producer.
#
#   sidekiq -r app_sidekiq.rb -c CONCURRENCY -q default
#   ruby app_sidekiq.rb single|bulk COUNT        and the other ways of producing.py

require 'json'
require 'sidekiq'

Sidekiq.configure_server { |config| config.redis = { url: ENV['GREENQ_BROKER_URL'] } }
Sidekiq.configure_client { |config| config.redis = { url: ENV['GREENQ_BROKER_URL'] } }
Redis.sadd_returns_boolean = false # else each bulk call is warned of
Sidekiq.logger.level = Logger::WARN

EXPECTED = ENV.fetch('LOADTEST_COUNT', '0').to_i
BATCH = 1000
PAUSE_S = 0.005
PARKED_S = 600

# Of the clock that all processes of a machine share.
def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

def cpu
  Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
end

def tell(what)
  File.open(ENV['LOADTEST_PIPE'], 'w') { |pipe| pipe.syswrite(JSON.generate(what) + "\n") }
end

# Counts jobs; tells when the first begins and when the last ends. Jobs are threads here.
module Stretch
  @lock = Mutex.new
  @begun = @ended = 0

  def self.begin
    @lock.synchronize do
      if @begun.zero?
        tell(began: now)
        @began_at = now
        @cpu = cpu
      end
      @begun += 1
    end
  end

  def self.end
    @lock.synchronize do
      @ended += 1
      if @ended == EXPECTED
        at = now
        tell(ended: at, seconds: at - @began_at, cpu_s: cpu - @cpu, pid: Process.pid)
      end
    end
  end
end

class Noop
  include Sidekiq::Worker

  def perform(_number)
    Stretch.begin
    Stretch.end
  end
end

class Nap
  include Sidekiq::Worker

  def perform(_number)
    Stretch.begin
    sleep 0.1
    Stretch.end
  end
end

class Park
  include Sidekiq::Worker
  LOCK = Mutex.new
  @@parked = 0

  def perform(_number)
    LOCK.synchronize do
      @@parked += 1
      tell(all_started: now, pid: Process.pid) if @@parked == EXPECTED
    end
    sleep PARKED_S
  end
end

class Ping
  include Sidekiq::Worker

  def perform(_number)
    tell(started: now, pid: Process.pid)
  end
end

class Due
  include Sidekiq::Worker
  LOCK = Mutex.new
  @@late = []

  def perform(due_ms)
    LOCK.synchronize do
      @@late << Time.now.to_f * 1000 - due_ms
      if @@late.size == EXPECTED
        late = @@late.sort
        tell(p50_ms: late[late.size / 2], p99_ms: late[late.size * 99 / 100])
      end
    end
  end
end

JOBS = { 'noop' => Noop, 'nap' => Nap, 'park' => Park, 'ping' => Ping, 'due' => Due }.freeze

def fill(job, arguments, **options)
  arguments.each_slice(BATCH) do |batch|
    Sidekiq::Client.push_bulk('class' => JOBS[job], 'args' => batch.map { |each| [each] }, **options)
  end
end

def produce(way, *args)
  case way
  when 'single'
    Noop.perform_async(0)
    started = now
    args[0].to_i.times { |number| Noop.perform_async(number) }
    { per_s: args[0].to_i / (now - started) }
  when 'bulk'
    Noop.perform_async(0)
    started = now
    fill('noop', (0...args[0].to_i))
    { per_s: args[0].to_i / (now - started) }
  when 'fill'
    fill(args[0], (0...args[1].to_i))
    {}
  when 'later'
    due_ms = args[2].to_i
    fill(args[0], [due_ms] * args[1].to_i, **{ 'at' => due_ms / 1000.0 })
    {}
  when 'latency'
    latencies = []
    ends = now + args[1].to_i
    File.open(ENV['LOADTEST_PIPE'], 'r+') do |pipe|
      while latencies.size < args[0].to_i && now < ends
        sleep PAUSE_S
        sent = now
        Ping.perform_async(0)
        latencies << (JSON.parse(pipe.gets)['started'] - sent) * 1000
      end
    end
    latencies.sort!
    { p50_ms: latencies[latencies.size / 2], p99_ms: latencies[latencies.size * 99 / 100], count: latencies.size }
  end
end

puts JSON.generate(produce(*ARGV)) if $PROGRAM_NAME == __FILE__
