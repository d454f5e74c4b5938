// Drives jsforce, unchanged, through everything that a program does with it, and prints what it saw as JSON.
// Standard input: {url, clientId, clientSecret, rows, gone}. What is thrown ends the program with a word on stderr.

'use strict';

const jsforce = require('jsforce');

async function drive({ url, clientId, clientSecret, rows, gone }) {
  const seen = {};
  const conn = new jsforce.Connection({
    version: '66.0',
    loginUrl: url,
    oauth2: { loginUrl: url, clientId, clientSecret },
  });
  conn.bulk2.pollInterval = 50;
  conn.bulk2.pollTimeout = 60000;

  seen.login = await conn.authorize({ grant_type: 'client_credentials' });
  seen.identity = await conn.identity();
  seen.versions = (await conn.request(`${conn.instanceUrl}/services/data`)).map((one) => one.version);

  const upserted = await conn.bulk2.loadAndWaitForResults({
    object: 'Opportunity',
    operation: 'upsert',
    externalIdFieldName: 'External_ID__c',
    input: rows,
  });
  seen.upserted = {
    succeeded: upserted.successfulResults.map((row) => row.External_ID__c),
    failed: upserted.failedResults.map((row) => [row.External_ID__c, row.sf__Error]),
    unprocessed: upserted.unprocessedRecords.length,
  };

  const soql = "SELECT Id, External_ID__c, Name, Amount FROM Opportunity WHERE External_ID__c LIKE 'js-%'";
  const bulkQuery = await conn.bulk2.query(soql);
  seen.bulkQuery = await bulkQuery.toArray();
  seen.query = await conn.query(soql).run({ autoFetch: true, maxFetch: 100000 });
  seen.columns = await conn.request(`/query?q=${encodeURIComponent(soql)}&columns=true`);
  seen.explained = await conn.query(soql).explain();
  seen.count = (await conn.query('SELECT COUNT() FROM Opportunity')).totalSize;

  const described = await conn.sobject('Opportunity').describe();
  seen.described = described.fields.map((field) => field.name);
  seen.objects = (await conn.describeGlobal()).sobjects.map((one) => one.name);

  const accounts = conn.sobject('Account');
  const made = await accounts.create([{ Name: 'js one' }, { Name: 'js two' }]);
  const ids = made.map((one) => one.id);
  await accounts.update({ Id: ids[0].slice(0, 15), Name: 'js first' });
  seen.retrieved = (await accounts.retrieve(ids)).map((one) => one.Name);
  seen.one = (await accounts.retrieve(ids[0].slice(0, 15))).Name;
  const hour = 3600 * 1000;
  const changed = await accounts.updated(new Date(Date.now() - hour), new Date(Date.now() + hour));
  seen.updated = ids.every((id) => changed.ids.includes(id));
  seen.destroyed = (await accounts.destroy(ids)).map((one) => one.success);
  const lost = await accounts.deleted(new Date(Date.now() - hour), new Date(Date.now() + hour));
  seen.deletedLog = ids.every((id) => lost.deletedRecords.some((one) => one.id === id));

  const deals = conn.sobject('Opportunity');
  const deal = { StageName: 'Prospecting', CloseDate: '2026-01-01' };
  const collection = [1, 2, 3].map((n) => ({ ...deal, External_ID__c: `coll-${n}`, Name: `collection ${n}` }));
  collection.push({ External_ID__c: 'coll-4', Name: 'no stage' });
  seen.collection = (await deals.upsert(collection, 'External_ID__c')).map((one) => one.success);

  seen.limits = (await conn.limits()).DailyApiRequests;
  seen.recent = await conn.recent();
  seen.refused = {};
  for (const [name, call] of Object.entries({
    search: () => conn.search('FIND {x}'),
    bulkOne: () => conn.bulk.createJob('Account', 'insert').on('error', () => {}).open(),
    soapLogin: () => new jsforce.Connection({ loginUrl: url }).login('somebody', 'secret'),
    query: () => conn.query('SELECT Nme FROM Account'),
  })) {
    try {
      await call();
      seen.refused[name] = null;
    } catch (error) {
      seen.refused[name] = `${error.errorCode || error.name}: ${error.message}`;
    }
  }

  const takenAway = seen.bulkQuery.filter((row) => gone.includes(row.External_ID__c)).map((row) => ({ Id: row.Id }));
  const deleted = await conn.bulk2.loadAndWaitForResults({ object: 'Opportunity', operation: 'delete', input: takenAway });
  seen.deleted = [deleted.successfulResults.length, deleted.failedResults.length];

  const { instanceUrl, accessToken } = conn;
  await conn.logout();
  try {
    await new jsforce.Connection({ instanceUrl, accessToken, version: '66.0' }).limits();
    seen.afterwards = null;
  } catch (error) {
    seen.afterwards = error.errorCode;
  }
  return seen;
}

let text = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (piece) => { text += piece; });
process.stdin.on('end', () => {
  drive(JSON.parse(text)).then(
    (seen) => process.stdout.write(JSON.stringify(seen)),
    (error) => {
      process.stderr.write(`${error.stack || error}\n`);
      process.exitCode = 1;
    },
  );
});
