// Questions to the run: over the server's API, or, in an exported file, of the data that it carries.

import {embeddedAnswer} from "./embedded.js";

const carried = document.getElementById("carried");
const data = carried ? JSON.parse(carried.textContent) : null;

export const exported = data !== null;

export async function ask(question, parameters = {}) {
  const asked = Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined));
  if (exported) return embeddedAnswer(data, question, asked);
  let reply;
  for (let again = 3; ; again--) {
    try {
      reply = await fetch(`/api/${question}?${new URLSearchParams(asked)}`);
    } catch {
      throw new Error("The explorer does not answer: is saematch explore still running?");
    }
    const wait = Number(reply.headers.get("retry-after"));
    if (reply.status !== 503 || !wait || !again) break;
    await new Promise((resolve) => setTimeout(resolve, 1000 * wait));
  }
  let answer;
  try {
    answer = await reply.json();
  } catch {
    throw new Error(`The explorer answered ${reply.status} without saying why.`);
  }
  if (!reply.ok) throw new Error(answer.error || `The explorer answered ${reply.status}.`);
  return answer;
}

export function takeAddress(format, parameters) {
  const asked = Object.entries(parameters).filter(([, value]) => value !== "");
  return `/api/take?${new URLSearchParams([...asked, ["format", format]])}`;
}
