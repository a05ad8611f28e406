// Runs Marten and annals on the same event tables, and checks that each reads what the other wrote.
// README.md says how to run it.

using System.Diagnostics;
using System.Text.Json;
using JasperFx;
using JasperFx.Events;
using JasperFx.Events.Daemon;
using JasperFx.Events.Projections;
using Marten;
using Npgsql;

var settings = Settings.FromEnvironment();
var schema = $"beside_{Environment.ProcessId}";
var url = settings.AnnalsUrl(schema);

using var store = DocumentStore.For(options =>
{
    options.Connection(settings.Connection);
    options.DatabaseSchemaName = schema;
    options.AutoCreateSchemaObjects = AutoCreate.CreateOrUpdate;
    options.Events.StreamIdentity = StreamIdentity.AsString;
    // Without this, events of annals whose type no .NET event had before could not be read.
    options.Events.AddEventType<AccountOpened>();
    options.Events.AddEventType<MoneyPaid>();
    options.Projections.Snapshot<Account>(SnapshotLifecycle.Async);
});

await store.Storage.ApplyAllConfiguredChangesToDatabaseAsync();

await Step("annals appends to a stream that .NET began, and begins one", async () =>
{
    await Append("account-1", new AccountOpened("Ada"), new MoneyPaid(100));
    await Annals("append", url, "--stream", "account-1", "--type", "money_paid", "--data", """{"Cents":20}""");
    await Annals("append", url, "--stream", "account-2", "--type", "account_opened", "--data", """{"Owner":"Bob"}""",
        "--expect", "none");
    await Annals("append", url, "--stream", "account-2", "--type", "money_paid", "--data", """{"Cents":3}""",
        "--expect", "1");
    await using var session = store.QuerySession();
    var events = await session.Events.FetchStreamAsync("account-1");
    Check(events.Select(e => e.Version).SequenceEqual([1L, 2L, 3L]), "the versions of account-1");
    Check(events[2].Data is MoneyPaid { Cents: 20 }, "the event of annals");
    var bob = await session.Events.AggregateStreamAsync<Account>("account-2");
    Check(bob is { Owner: "Bob", Cents: 3 }, "the live aggregate of a stream of annals");
});

await Step(".NET appends after annals", async () =>
{
    await using var session = store.LightweightSession();
    var stream = await session.Events.FetchForWriting<Account>("account-2");
    Check(stream.Aggregate is { Cents: 3 } && stream.CurrentVersion == 2, "what FetchForWriting gives");
    stream.AppendOne(new MoneyPaid(4));
    await session.SaveChangesAsync();
    var state = await session.Events.FetchStreamStateAsync("account-2");
    Check(state?.Version == 3, "the version of the stream");
});

await Step("the schema is as Marten wants it, with the schema of annals beside it", async () =>
    await store.Storage.Database.AssertDatabaseMatchesConfigurationAsync());

using var daemon = await store.BuildProjectionDaemonAsync();
await daemon.StartAllAsync();

await Step($"both append for {settings.Duration.TotalSeconds} seconds, and annals reads all", async () =>
{
    using var tail = Start("tail", url, "--follow", "--json", "--lines", "1000000");
    var seen = Task.Run(() => Positions(tail));
    var end = DateTime.UtcNow + settings.Duration;
    var writers = Enumerable.Range(0, 4).Select(number => Task.Run(() => Write(number, end))).ToList();
    writers.Add(Task.Run(() => WriteByAnnals(end)));
    await Task.WhenAll(writers);
    await Annals("append", url, "--stream", "end-1", "--type", "money_paid", "--data", """{"Cents":0}""");
    var positions = await seen.WaitAsync(TimeSpan.FromMinutes(1));
    tail.Kill();
    var rows = await Numbers();
    Check(positions.SequenceEqual(rows), $"{rows.Except(positions).Count()} of {rows.Count} events were missed");
    Console.WriteLine($"   {rows.Count} events");
});

await Step("annals is killed while it appends", async () =>
{
    using var append = Start("append", url);
    for (var line = 0; line < 2_000; line++)
    {
        await append.StandardInput.WriteLineAsync(Line(line));
    }
    await append.StandardInput.FlushAsync();
    append.Kill();
    await append.WaitForExitAsync();
});

await Step("the daemon has counted every event", async () =>
{
    // The server may still be about to commit what was sent.
    await Append("account-1", new MoneyPaid(1));
    await daemon.WaitForNonStaleData(TimeSpan.FromMinutes(1));
    await using var session = store.QuerySession();
    var accounts = await session.Query<Account>().ToListAsync();
    var counted = accounts.Sum(account => (long)account.Events);
    Check(counted == (await Numbers()).Count, $"the daemon has counted {counted} events");
});

await Step("an archived stream takes no event of annals", async () =>
{
    await using (var session = store.LightweightSession())
    {
        session.Events.ArchiveStream("account-1");
        await session.SaveChangesAsync();
    }
    using var append = Start("append", url, "--stream", "account-1", "--type", "money_paid", "--data", "{}");
    var said = await append.StandardError.ReadToEndAsync();
    await append.WaitForExitAsync();
    Check(append.ExitCode != 0 && said.Contains("closed"), $"the append ended with {append.ExitCode}: {said}");
});

await daemon.StopAllAsync();
Console.WriteLine("all is well");
return 0;

async Task Step(string name, Func<Task> step)
{
    Console.WriteLine(name);
    await step();
}

static void Check(bool holds, string what)
{
    if (!holds)
    {
        throw new InvalidOperationException($"not as it should be: {what}");
    }
}

async Task Append(string stream, params object[] events)
{
    await using var session = store.LightweightSession();
    session.Events.Append(stream, events);
    await session.SaveChangesAsync();
}

// Appends as .NET programs do: some races are lost, and some units of work fail after their events.
async Task Write(int number, DateTime end)
{
    var random = new Random(number);
    while (DateTime.UtcNow < end)
    {
        try
        {
            await using var session = store.LightweightSession();
            session.Events.Append($"account-{random.Next(20)}", new MoneyPaid(1), new MoneyPaid(2));
            if (random.Next(4) == 0)
            {
                session.Events.StartStream<Account>($"new-{Guid.NewGuid()}", new AccountOpened("new"));
            }
            if (random.Next(20) == 0)
            {
                session.QueueSqlCommand("select 1 / 0");
            }
            await session.SaveChangesAsync();
        }
        catch (Exception)
        {
            // A lost race, or the division by zero.
        }
    }
}

async Task WriteByAnnals(DateTime end)
{
    using var append = Start("append", url);
    var output = append.StandardOutput.ReadToEndAsync();
    var errors = append.StandardError.ReadToEndAsync();
    for (var line = 0; DateTime.UtcNow < end; line++)
    {
        await append.StandardInput.WriteLineAsync(Line(line));
    }
    append.StandardInput.Close();
    await append.WaitForExitAsync();
    await output;
    Check(append.ExitCode == 0, $"annals append ended with {append.ExitCode}: {await errors}");
}

static string Line(int number) => JsonSerializer.Serialize(new
{
    stream = $"account-{number % 20}", type = "money_paid", data = new { Cents = number }
});

// The positions that `annals tail` prints, up to the event in the stream end-1.
static async Task<List<long>> Positions(Process tail)
{
    var positions = new List<long>();
    while (await tail.StandardOutput.ReadLineAsync() is { } line)
    {
        using var json = JsonDocument.Parse(line);
        positions.Add(json.RootElement.GetProperty("position").GetInt64());
        if (json.RootElement.GetProperty("stream").GetString() == "end-1")
        {
            break;
        }
    }
    return positions;
}

// The numbers of all events but tombstones, in order.
async Task<List<long>> Numbers()
{
    await using var connection = new NpgsqlConnection(settings.Connection);
    await connection.OpenAsync();
    await using var command = new NpgsqlCommand(
        $"""
         select seq_id from {schema}.mt_events
         where mt_dotnet_type not like 'JasperFx.Events.Tombstone,%' order by seq_id
         """, connection);
    await using var reader = await command.ExecuteReaderAsync();
    var numbers = new List<long>();
    while (await reader.ReadAsync())
    {
        numbers.Add(reader.GetInt64(0));
    }
    return numbers;
}

Process Start(params string[] arguments)
{
    var start = new ProcessStartInfo(settings.Annals, arguments)
    {
        RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true
    };
    return Process.Start(start) ?? throw new InvalidOperationException("annals did not start");
}

async Task Annals(params string[] arguments)
{
    using var process = Start(arguments);
    process.StandardInput.Close();
    var output = process.StandardOutput.ReadToEndAsync();
    var said = await process.StandardError.ReadToEndAsync();
    await output;
    await process.WaitForExitAsync();
    Check(process.ExitCode == 0, $"annals {string.Join(' ', arguments)} ended with {process.ExitCode}: {said}");
}

public record AccountOpened(string Owner);

public record MoneyPaid(int Cents);

public partial class Account
{
    public string Id { get; set; } = "";
    public string? Owner { get; set; }
    public long Cents { get; set; }
    public int Events { get; set; }

    public void Apply(AccountOpened opened)
    {
        Owner = opened.Owner;
        Events++;
    }

    public void Apply(MoneyPaid paid)
    {
        Cents += paid.Cents;
        Events++;
    }
}

internal sealed record Settings(string Host, int Port, string User, string Password, string Database, string Annals,
    TimeSpan Duration)
{
    public static Settings FromEnvironment()
    {
        static string Get(string name, string otherwise) => Environment.GetEnvironmentVariable(name) ?? otherwise;
        return new Settings(Get("PGHOST", "localhost"), int.Parse(Get("PGPORT", "5432")), Get("PGUSER", "postgres"),
            Get("PGPASSWORD", ""), Get("PGDATABASE", "postgres"), Get("ANNALS", "annals"),
            TimeSpan.FromSeconds(int.Parse(Get("BESIDE_SECONDS", "20"))));
    }

    public string Connection => new NpgsqlConnectionStringBuilder
    {
        Host = Host, Port = Port, Username = User, Password = Password, Database = Database
    }.ConnectionString;

    public string AnnalsUrl(string schema)
    {
        var user = Uri.EscapeDataString(User);
        var password = Password == "" ? "" : $":{Uri.EscapeDataString(Password)}";
        return $"marten://{user}{password}@{Host}:{Port}/{Database}?schema={schema}";
    }
}
