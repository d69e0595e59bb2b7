// An SMSC on the npm package "smpp", with its own codec: `node smsc.js SMPP_PORT HTTP_PORT`, from a folder that has the package.
//
// A recipient's last digits say what it meets: 58 is throttled, 11 is no number, 99 is read before the line is cut; any other is
// accepted, and its receipt, where one was asked for, is delivered again every 0.2 s until it is taken. The password "wrong" is
// refused. GET /seen gives what was bound, submitted (long texts put together) and acknowledged; POST /write delivers a text.

"use strict";

const http = require("http");
const smpp = require("smpp");

const [smppPort, httpPort] = process.argv.slice(2).map(Number);
const seen = { binds: [], messages: [], acknowledged: [], unbinds: 0 };
const parts = new Map();
const sessions = new Set();
let last = 0;

function keep(pdu, id) {
  const { udh, message } = pdu.short_message;
  const known = { id, to: pdu.destination_addr, from: pdu.source_addr, coding: pdu.data_coding };
  Object.assign(known, { ton: pdu.source_addr_ton, npi: pdu.source_addr_npi, receipt: pdu.registered_delivery });
  if (!udh) {
    seen.messages.push({ ...known, text: message, parts: 1 });
    return;
  }
  const [, , reference, total, number] = udh[0]; // identifier and length before them
  const key = `${pdu.destination_addr}:${reference}`;
  const found = parts.get(key) || new Map();
  parts.set(key, found.set(number, message));
  if (found.size === total) {
    const whole = Array.from({ length: total }, (_, index) => found.get(index + 1)).join("");
    seen.messages.push({ ...known, text: whole, parts: total });
    parts.delete(key);
  }
}

function receipt(session, pdu, id) {
  const told = `id:${id} sub:001 dlvrd:001 submit date:2611281200 done date:2611281201 stat:DELIVRD err:000 text:`;
  const again = () => {
    if (!sessions.has(session)) return;
    const delivery = { esm_class: 4, source_addr: pdu.destination_addr, destination_addr: pdu.source_addr, short_message: told };
    Object.assign(delivery, { source_addr_ton: 1, source_addr_npi: 1, receipted_message_id: id, message_state: 2 });
    session.deliver_sm(delivery, (answer) => {
      seen.acknowledged.push({ id, status: answer.command_status });
      if (answer.command_status !== 0) setTimeout(again, 200);
    });
  };
  setTimeout(again, 50);
}

function submitted(session, pdu) {
  const to = pdu.destination_addr;
  if (to.endsWith("99")) return session.destroy();
  if (to.endsWith("58")) return session.send(pdu.response({ command_status: smpp.ESME_RTHROTTLED }));
  if (to.endsWith("11")) return session.send(pdu.response({ command_status: smpp.ESME_RINVDSTADR }));
  last += 1;
  const id = `npm-${last}`;
  keep(pdu, id);
  session.send(pdu.response({ message_id: id }));
  if (pdu.registered_delivery) receipt(session, pdu, id);
}

const server = smpp.createServer((session) => {
  session.on("error", () => {});
  session.on("close", () => sessions.delete(session));
  session.on("bind_transceiver", (pdu) => {
    seen.binds.push({ system_id: pdu.system_id, system_type: pdu.system_type, version: pdu.interface_version });
    if (pdu.password === "wrong") return session.send(pdu.response({ command_status: smpp.ESME_RINVPASWD }));
    sessions.add(session);
    session.send(pdu.response({ system_id: "double" }));
  });
  session.on("submit_sm", (pdu) => submitted(session, pdu));
  session.on("enquire_link", (pdu) => session.send(pdu.response()));
  session.on("unbind", (pdu) => {
    seen.unbinds += 1;
    session.send(pdu.response());
    session.close();
  });
});

function write(body, response) {
  const { from, text: words } = JSON.parse(body);
  const [session] = sessions;
  const delivery = { source_addr: from, source_addr_ton: 1, source_addr_npi: 1, destination_addr: "Shop", short_message: words };
  session.deliver_sm(delivery, (answer) => response.end(JSON.stringify({ status: answer.command_status })));
}

http
  .createServer((request, response) => {
    if (request.method === "GET") return response.end(JSON.stringify(seen));
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => write(body, response));
  })
  .listen(httpPort, "127.0.0.1");
server.listen(smppPort, "127.0.0.1");
