//! Programs that run until they are stopped, started while building.
// tidy: table

use kiln_report::Level;

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::shell::{After, ScopeKind, Word};
use crate::view::View;

pub(super) const RULES: &[Rule] = &[Rule {
    name: "LongRunningProcessInRun",
    aliases: &[],
    level: Level::Warning,
    scope: Scope::Build,
    summary: "a step starts a server, which never ends",
    why: "A step ends when its command does. A server only ends when it is stopped, so the build waits for ever.",
    bad: "FROM python:3.12\nRUN flask run\n",
    good: "FROM python:3.12\nCMD [\"flask\", \"run\"]\n",
    check,
}];

fn check(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script, call) in view.calls() {
        let command = call.command;
        // A function only runs when it is called, which may be in the background.
        if command.after == After::Background || script.code.is_within(command, ScopeKind::Function) {
            continue;
        }
        let Some(server) = never_ends(call.words) else { continue };
        let message = format!("`{}` runs until it is stopped, so this step never ends", server.join(" "));
        let span = script.span(command.start, command.end);
        findings.report(step.instruction, span, message, "start it with CMD or ENTRYPOINT");
    }
}

/// The words such a command begins with.
pub(super) const SERVERS: &[&[&str]] = &[
    &["flask", "run"],
    &["python", "-m", "flask", "run"],
    &["python", "-m", "http.server"],
    &["python", "-m", "uvicorn"],
    &["python", "-m", "gunicorn"],
    &["python", "-m", "SimpleHTTPServer"],
    &["python", "manage.py", "runserver"],
    &["django-admin", "runserver"],
    &["gunicorn"],
    &["uvicorn"],
    &["hypercorn"],
    &["daphne"],
    &["streamlit", "run"],
    &["jupyter", "notebook"],
    &["jupyter", "lab"],
    &["celery", "worker"],
    &["npm", "start"],
    &["npm", "run", "start"],
    &["npm", "run", "dev"],
    &["npm", "run", "serve"],
    &["yarn", "start"],
    &["yarn", "dev"],
    &["yarn", "serve"],
    &["yarn", "run", "start"],
    &["yarn", "run", "dev"],
    &["pnpm", "start"],
    &["pnpm", "dev"],
    &["pnpm", "run", "start"],
    &["pnpm", "run", "dev"],
    &["bun", "run", "dev"],
    &["npx", "serve"],
    &["npx", "http-server"],
    &["npx", "nodemon"],
    &["node", "server.js"],
    &["nodemon"],
    &["http-server"],
    &["python", "-m", "celery"],
    &["python", "-m", "jupyter"],
    &["fastapi", "run"],
    &["fastapi", "dev"],
    &["waitress-serve"],
    &["mkdocs", "serve"],
    &["sphinx-autobuild"],
    &["jupyter-lab"],
    &["jupyter-notebook"],
    &["code-server"],
    &["npm", "run", "watch"],
    &["yarn", "run", "serve"],
    &["yarn", "watch"],
    &["pnpm", "serve"],
    &["pnpm", "preview"],
    &["bun", "dev"],
    &["deno", "serve"],
    &["vite", "dev"],
    &["vite", "serve"],
    &["vite", "preview"],
    &["npx", "vite", "preview"],
    &["webpack", "serve"],
    &["webpack-dev-server"],
    &["live-server"],
    &["nuxt", "dev"],
    &["gatsby", "develop"],
    &["next", "start"],
    &["next", "dev"],
    &["ng", "serve"],
    &["pm2-runtime"],
    &["rails", "server"],
    &["rails", "s"],
    &["bundle", "exec", "rails", "server"],
    &["bundle", "exec", "rails", "s"],
    &["bundle", "exec", "puma"],
    &["puma"],
    &["php", "artisan", "serve"],
    &["php", "-S"],
    &["php-fpm", "-F"],
    &["bundle", "exec", "sidekiq"],
    &["sidekiq"],
    &["rackup"],
    &["unicorn"],
    &["mix", "phx.server"],
    &["symfony", "serve"],
    &["jekyll", "serve"],
    &["hugo", "server"],
    &["nginx"],
    &["caddy", "run"],
    &["apachectl", "-D", "FOREGROUND"],
    &["apache2ctl", "-D", "FOREGROUND"],
    &["apache2-foreground"],
    &["httpd-foreground"],
    &["httpd", "-DFOREGROUND"],
    &["httpd", "-D", "FOREGROUND"],
    &["redis-server"],
    &["mongod"],
    &["postgres"],
    &["mysqld"],
    &["memcached"],
    &["rabbitmq-server"],
    &["mysqld_safe"],
    &["mariadbd"],
    &["valkey-server"],
    &["nats-server"],
    &["etcd"],
    &["minio", "server"],
    &["vault", "server"],
    &["consul", "agent"],
    &["ollama", "serve"],
    &["prometheus"],
    &["grafana-server"],
    &["traefik"],
    &["dockerd"],
    &["containerd"],
    &["catalina.sh", "run"],
    &["docker-compose", "up"],
    &["docker", "compose", "up"],
    &["cargo", "watch"],
    &["supervisord"],
    &["sshd", "-D"],
    &["dotnet", "watch"],
    &["tail", "-f"],
    &["tail", "-F"],
    &["sleep", "infinity"],
];

/// Arguments with which such a program does something else and ends.
pub(super) const HARMLESS: &[&str] = &[
    "-h",
    "--help",
    "-v",
    "-V",
    "--version",
    "version",
    "-d",
    "--detach",
    "-t",
    "-T",
    "--check",
    "--check-config",
    "--test",
    "--initialize",
    "--initialize-insecure",
    "--fork",
    "--daemonize",
    "--daemon",
    "-D",
    "--shutdown",
];

/// Whether a command's words are those of a program that does not end.
pub(super) fn never_ends(words: &[Word]) -> Option<&'static [&'static str]> {
    let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let name = |word: &str, wanted: &str| {
        let word = word.rsplit('/').next().unwrap_or(word);
        word == wanted || wanted == "python" && is_python(word)
    };
    let begins = |server: &&&[&str]| {
        server.len() <= words.len()
            && name(words[0], server[0])
            && server[1..].iter().zip(&words[1..]).all(|(wanted, word)| word == wanted)
    };
    let server = SERVERS.iter().find(begins)?;
    let rest = &words[server.len()..];
    let ends = rest.iter().any(|word| HARMLESS.contains(word));
    // Without arguments a web server goes into the background.
    let is_daemon = server[0] == "nginx" && !rest.iter().any(|word| word.contains("daemon off"));
    (!ends && !is_daemon).then_some(*server)
}

fn is_python(word: &str) -> bool {
    word.strip_prefix("python").is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_from_their_harmless_uses() {
        let never = |line: &str| {
            let words: Vec<Word> = line.split(' ').map(|word| Word::literal(word, 0, 0)).collect();
            never_ends(&words).is_some()
        };
        for line in ["flask run", "python3.11 -m flask run --host=0", "/usr/bin/npm start", "tail -f /dev/null"] {
            assert!(never(line), "{line}");
        }
        let nginx = ["nginx", "-g", "daemon off;"].map(|word| Word::literal(word, 0, 0));
        assert!(never_ends(&nginx).is_some());
        for line in ["nginx -t", "nginx", "npm run build", "redis-server --version", "python setup.py", "mongod --fork"]
        {
            assert!(!never(line), "{line}");
        }
    }
}
