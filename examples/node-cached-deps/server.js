// Serves one line, or prints it when asked with --once.
const ms = require('ms');
const line = () => `up for ${ms(process.uptime() * 1000)}, one day is ${ms('1d')} ms\n`;

if (process.argv.includes('--once')) {
  process.stdout.write(line());
} else {
  require('http').createServer((_, reply) => reply.end(line())).listen(3000);
}
